"""Headless Chromium for the tests that look at a page."""

import contextlib
import shutil
import tempfile
import time

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
_OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --hide-scrollbars"
).split()


@contextlib.contextmanager
def browser(width=1280, height=1000):
    """A window of its own, without memory of earlier ones; closed with all its processes."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    profile = tempfile.mkdtemp(prefix="daskdml-chromium-")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*_OPTIONS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)


def until(condition, seconds=20.0):
    """The first true value of a condition that is looked at again and again."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def plotted(driver):
    """For each figure of the page its title, where its time axis ends, and its sources, as the browser has them."""
    return driver.execute_script(
        """
        const plain = (value) => ArrayBuffer.isView(value) ? Array.from(value) : value
        const found = {}
        for (const doc of Bokeh.documents) for (const root of doc.roots()) {
          if (!(root.name || "").startsWith("daskdml_") || !root.renderers) continue
          const data = root.renderers.map((renderer) => {
            const source = renderer.data_source.data
            const columns = source instanceof Map ? [...source] : Object.entries(source)
            return Object.fromEntries(columns.map(([name, values]) => [name, Array.from(values, plain)]))
          })
          found[root.name] = {title: root.title.text, end: root.x_range.end, data: data}
        }
        return found
        """
    )


def complaints(driver):
    """What the browser has complained about."""
    return [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
