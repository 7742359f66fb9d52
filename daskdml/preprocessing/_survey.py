"""What one pass over a table tells of its columns; parts are surveyed alone and merged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from daskdml.preprocessing._columns import CATEGORY, codes_of, number_names, slabs

# Names counted in a column at most; beyond, the rarest are forgotten, which bounds memory and leaves the most
# frequent, the only ones that get a column, in place.
_MAX_COUNTED = 20_000


@dataclass
class Moments:
    """Count, mean and sum of squared deviations of each of some columns."""

    count: np.ndarray
    mean: np.ndarray
    m2: np.ndarray

    @classmethod
    def zeros(cls, width: int) -> Moments:
        return cls(np.zeros(width), np.zeros(width), np.zeros(width))

    def add(self, other: Moments) -> None:
        """Merge by the formula of Chan, Golub and LeVeque (1979): no cancellation for large means."""
        total = self.count + other.count
        safe = np.maximum(total, 1)
        delta = other.mean - self.mean
        self.mean = self.mean + delta * other.count / safe
        self.m2 = self.m2 + other.m2 + delta**2 * self.count * other.count / safe
        self.count = total


@dataclass
class Survey:
    """Statistics of the numeric features and the counted names of the categories."""

    rows: int
    raw: Moments
    log: Moments
    low: np.ndarray
    high: np.ndarray
    counts: dict[str, Counter] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    infinite: dict[int, int] = field(default_factory=dict)

    @classmethod
    def empty(cls, width: int) -> Survey:
        bounds = np.full(width, np.inf), np.full(width, -np.inf)
        return cls(0, Moments.zeros(width), Moments.zeros(width), *bounds)

    def add(self, other: Survey) -> Survey:
        """Take in the survey of other rows; returns self."""
        self.rows += other.rows
        self.raw.add(other.raw)
        self.log.add(other.log)
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        for name, counted in other.counts.items():
            mine = self.counts.setdefault(name, Counter())
            mine.update(counted)
            self.counts[name] = _bounded(mine)
            self.missing[name] = self.missing.get(name, 0) + other.missing[name]
        for column, part in other.infinite.items():
            self.infinite[column] = min(part, self.infinite.get(column, part))
        return self


def survey(frame: pd.DataFrame, kinds: dict[str, str], part: int = 0, chosen: np.ndarray | None = None) -> Survey:
    """The survey of one part, or of the rows ``chosen`` of it; its number names it where it holds infinities."""
    result = Survey.empty(len(number_names(kinds)))
    if result.low.size:
        for slab in slabs(frame, kinds, chosen):
            result.add(_of_slab(slab, part))
    result.rows = len(frame) if chosen is None else len(chosen)
    for column, kind in kinds.items():
        if kind == CATEGORY:
            codes, names = codes_of(frame[column] if chosen is None else frame[column].iloc[chosen])
            counts: Counter = Counter()
            for name, n in zip(names, np.bincount(codes[codes >= 0], minlength=len(names)).tolist(), strict=True):
                counts[name] += n
            result.counts[column] = _bounded(counts)
            result.missing[column] = int((codes < 0).sum())
    return result


def _of_slab(slab: np.ndarray, part: int) -> Survey:
    finite = np.isfinite(slab.sum(axis=0))
    infinite = {}
    if not finite.all():
        bad = np.flatnonzero(np.isinf(slab).any(axis=0))
        infinite = {int(c): part for c in bad}
        return _with_gaps(slab, infinite)
    low, high = slab.min(axis=0), slab.max(axis=0)
    log = Moments.zeros(slab.shape[1])
    # The logarithm is the dear part, and of no use where something is negative.
    counters = np.flatnonzero(low >= 0)
    if counters.size:
        some = _moments(np.log1p(slab[:, counters]))
        log.count[counters], log.mean[counters], log.m2[counters] = some.count, some.mean, some.m2
    return Survey(len(slab), _moments(slab), log, low, high, infinite=infinite)


def _moments(slab: np.ndarray) -> Moments:
    n = len(slab)
    mean = slab.sum(axis=0) / n
    deviation = slab - mean
    return Moments(np.full(slab.shape[1], float(n)), mean, np.einsum("ij,ij->j", deviation, deviation))


def _with_gaps(slab: np.ndarray, infinite: dict[int, int]) -> Survey:
    there = np.isfinite(slab)
    low = np.where(there, slab, np.inf).min(axis=0)
    high = np.where(there, slab, -np.inf).max(axis=0)
    raw = _gap_moments(slab, there)
    with np.errstate(invalid="ignore", divide="ignore"):
        log = _gap_moments(np.log1p(np.maximum(slab, 0)), there)
    return Survey(len(slab), raw, log, low, high, infinite=infinite)


def _gap_moments(slab: np.ndarray, there: np.ndarray) -> Moments:
    count = there.sum(axis=0).astype(float)
    mean = np.where(there, slab, 0).sum(axis=0) / np.maximum(count, 1)
    deviation = np.where(there, slab - mean, 0)
    return Moments(count, mean, np.einsum("ij,ij->j", deviation, deviation))


def _bounded(counts: Counter) -> Counter:
    return counts if len(counts) <= _MAX_COUNTED else Counter(dict(counts.most_common(_MAX_COUNTED // 2)))
