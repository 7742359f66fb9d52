"""The rows of a part that are trained on and those that are held out, and what a block gets of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from daskdml.preprocessing._sparse import largest
from daskdml.preprocessing._survey import Survey, survey
from daskdml.workflow._target import TargetSurvey, survey_target, values_of
from daskdml.workflow._units import Units

TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class HoldOut:
    """A random part of the rows of every part; the same rows whenever and wherever it is asked."""

    size: float
    seed: int

    def rows(self, part: int, n: int, side: str) -> np.ndarray:
        """Which of ``n`` rows of part number ``part`` are on ``side``."""
        held = np.random.default_rng([self.seed, part]).random(n) < self.size
        return held if side == TEST else ~held


@dataclass(frozen=True)
class Layout:
    """Where in a part the features and the target are; with ``units``, that the labels are to be standardised."""

    kinds: dict[str, str]
    target: str | None
    holdout: HoldOut
    whole: bool = False
    units: Units | None = None

    def labels_of(self, part: Any, index: int, side: str) -> tuple[np.ndarray, np.ndarray]:
        """Positions and labels of the rows of one side that have one; of a table only the target is looked at."""
        y, there = values_of(part[1] if self.target is None else part[self.target])
        if self.whole and y.dtype.kind == "f":
            y = y.astype(np.int64)
        chosen = self.holdout.rows(index, len(there), side)
        return np.flatnonzero(there & chosen), y[chosen[there]]


@dataclass
class PartSurvey:
    """What the one pass before the training tells: of the training rows all, of the test rows how many."""

    target: TargetSurvey
    features: Survey | None
    largest: np.ndarray | None
    test_rows: int

    def add(self, other: PartSurvey) -> PartSurvey:
        self.target.add(other.target)
        if self.features is not None and other.features is not None:
            self.features.add(other.features)
        if self.largest is not None and other.largest is not None:
            self.largest = np.maximum(self.largest, other.largest)
        self.test_rows += other.test_rows
        return self


def survey_part(part: Any, index: int, layout: Layout) -> PartSurvey:
    """The survey of one part."""
    rows, y = layout.labels_of(part, index, TRAIN)
    target = survey_target(y, index)
    n = part[0].shape[0] if layout.target is None else len(part)
    labels = part[1] if layout.target is None else part[layout.target]
    target.missing = int(pd.isna(labels).sum())
    test_rows = n - target.missing - len(y)
    if layout.target is None:
        return PartSurvey(target, None, largest(part[0][rows]), test_rows)
    return PartSurvey(target, survey(part[list(layout.kinds)], layout.kinds, index, rows), None, test_rows)


def merge(surveys: list[PartSurvey]) -> PartSurvey:
    """The survey of several parts; the first is built upon."""
    # A task may run twice on the same inputs: what it is given must stay as it was.
    first = _copied(surveys[0])
    for one in surveys[1:]:
        first.add(one)
    return first


def _copied(one: PartSurvey) -> PartSurvey:
    import copy

    return copy.deepcopy(one)


@dataclass(frozen=True)
class Features:
    """The encoded features of one side of a part."""

    layout: Layout
    pipeline: Any
    side: str

    def __call__(self, part: Any, index: int) -> Any:
        rows, _ = self.layout.labels_of(part, index, self.side)
        if self.layout.target is None:
            return self.pipeline.transform(part[0][rows])
        return self.pipeline.encode(part, rows)


@dataclass(frozen=True)
class Labels:
    """The labels of one side of a part."""

    layout: Layout
    side: str

    def __call__(self, part: Any, index: int) -> np.ndarray:
        y = self.layout.labels_of(part, index, self.side)[1]
        return y if self.layout.units is None else self.layout.units.standardised(y)
