"""The error of a run that was asked for rightly and failed."""

from __future__ import annotations


class RunError(RuntimeError):
    """The run cannot go on: no scheduler answers, the workers do not fit, the fit diverged. Exit status 1.

    Examples
    --------
    >>> from daskdml.workflow import RunError
    >>> isinstance(RunError("the scheduler does not answer"), RuntimeError)
    True
    """
