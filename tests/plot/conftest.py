"""Pictures are drawn without a window, and put away."""

import pytest

matplotlib = pytest.importorskip("matplotlib", reason="drawing is the extra `plot`")


@pytest.fixture(autouse=True)
def no_window():
    from matplotlib import pyplot

    matplotlib.use("Agg")
    yield
    pyplot.close("all")
