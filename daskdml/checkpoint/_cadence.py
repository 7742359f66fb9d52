"""How often a fit is saved."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from dask.utils import parse_timedelta

_ROUNDS = re.compile(r"\s*(\d+)\s*rounds?\s*")


@dataclass(frozen=True)
class Cadence:
    """How often a fit is saved: after so many rounds, or else after so many seconds.

    Examples
    --------
    >>> from daskdml.checkpoint import Cadence
    >>> Cadence.of("10 rounds"), Cadence.of("2 minutes"), Cadence.of(30)
    (Cadence(rounds=10, seconds=0.0), Cadence(rounds=None, seconds=120.0), Cadence(rounds=None, seconds=30.0))
    """

    rounds: int | None = None
    seconds: float = 0.0

    @classmethod
    def of(cls, every: Any) -> Cadence:
        """From what a user writes: "10 rounds", a time with its unit as "30s" or "5 minutes", or seconds.

        Raises
        ------
        ValueError
            For anything else.
        """
        if isinstance(every, str) and (found := _ROUNDS.fullmatch(every)):
            if int(found[1]) > 0:
                return cls(rounds=int(found[1]))
        elif isinstance(every, str):
            try:
                seconds = float(parse_timedelta(every))
            except (KeyError, ValueError, IndexError):
                seconds = -1.0
            if 0 <= seconds < np.inf:
                return cls(seconds=seconds)
        elif isinstance(every, Real) and not isinstance(every, (bool, np.bool_)) and 0 <= float(every) < np.inf:
            return cls(seconds=float(every))
        raise ValueError(
            f"checkpoint_every={every!r} is no interval: give seconds as 60, a time with its unit as '30s' or "
            "'5 minutes', or rounds as '10 rounds'"
        )

    def due(self, rounds: int, seconds: float) -> bool:
        """Whether to save, so many rounds and seconds after the last time."""
        return seconds >= self.seconds if self.rounds is None else rounds >= self.rounds
