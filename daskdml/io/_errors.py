"""The error of a wrong use: what the user named is not there, or is not what it should be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The files, the columns or the options are wrong; the message names the thing and the remedy.

    The command line prints it as one line and exits with status 2.

    Examples
    --------
    >>> from daskdml.io import InputError
    >>> isinstance(InputError("no such file: data.csv"), ValueError)
    True
    """


def unknown_name(kind: str, name: str, known: Iterable[str], where: str) -> InputError:
    """Say that ``name`` is none of ``known``, with the close ones, or the first ones, listed."""
    names = [str(k) for k in known]
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.6)
    if not close:
        folded = {n.casefold(): n for n in names}
        close = [folded[str(name).casefold()]] if str(name).casefold() in folded else []
    if close:
        hint = "did you mean " + " or ".join(repr(c) for c in close) + "?"
    else:
        shown = ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
        hint = f"there are: {shown}" if names else "there are none"
    return InputError(f"no {kind} {name!r} in {where}; {hint}")
