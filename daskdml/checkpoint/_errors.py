"""The error of a checkpoint that cannot be used."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to another fit than the one that is to go on.

    Examples
    --------
    >>> from daskdml.checkpoint import CheckpointError
    >>> isinstance(CheckpointError("the checkpoint is of another fit"), ValueError)
    True
    """
