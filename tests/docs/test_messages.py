"""Each message that the troubleshooting page quotes is one the package can say."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
# A term of a definition list, in backticks, up to the part on Dask's own messages.
QUOTED = re.findall(r"^`(.+)`\n: ", PAGE.split("## Dask's own words")[0], re.MULTILINE)


def texts():
    """Every text in the package, with an ellipsis for what is filled in."""
    for path in (ROOT / "daskdml").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%(\.\d+)?[sdrfg]", "…", node.value)


TEXTS = list(texts())


def said(message):
    """Whether a text of the code contains this."""
    return any(message in text for text in TEXTS)


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_stands_in_the_code(message):
    assert said(message), f"nothing in daskdml says: {message}"


def test_every_quoted_message_is_checked():
    assert len(QUOTED) > 40
    assert len(QUOTED) == len(set(QUOTED))
    assert len(QUOTED) == len(re.findall(r"^: ", PAGE, re.MULTILINE))


def test_a_message_that_is_not_there_is_seen():
    assert not said("workers died … times of boredom")
