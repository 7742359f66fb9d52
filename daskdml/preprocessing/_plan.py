"""What the pipeline decides from a survey: pure, without data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daskdml.io import InputError
from daskdml.preprocessing._columns import CATEGORY, number_names
from daskdml.preprocessing._survey import Survey

# A counter is taken by its logarithm where its largest value is so many times its mean: bytes sent, say, of
# which most are hundreds and some are billions, and which standardised alone would be a spike above nothing.
_SKEW = 50.0
_SMALLEST_COUNTER = 10.0


@dataclass(frozen=True)
class Plan:
    """How each column is encoded."""

    log: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    categories: dict[str, list[str]]
    infrequent: list[str]
    missing: list[str]


def decide(found: Survey, kinds: dict[str, str], max_categories: int, min_frequency: int) -> Plan:
    """The plan for columns of ``kinds`` as the survey found them."""
    names = number_names(kinds)
    if not found.rows:
        raise InputError("the table holds no rows to learn from; give it some")
    if found.infinite:
        column, part = next(iter(sorted(found.infinite.items())))
        raise InputError(
            f"column {names[column]!r} holds an infinity in block {part}; replace infinities, for example by missing "
            "values, which are imputed"
        )
    log = skewed(found)
    moments = [np.where(log, getattr(found.log, k), getattr(found.raw, k)) for k in ("count", "mean", "m2")]
    count, mean, m2 = moments
    # Missing values become the mean: they add rows but no deviation.
    scale = np.sqrt(m2 / max(found.rows, 1))
    constant = (found.low >= found.high) | (scale <= 1e-12 * np.abs(mean))
    chosen = {c: _names(found, c, max_categories, min_frequency) for c, k in kinds.items() if k == CATEGORY}
    return Plan(
        log=log,
        mean=np.where(count > 0, mean, 0.0),
        scale=np.where(constant, 1.0, scale),
        categories=chosen,
        infrequent=[c for c, names in chosen.items() if len(names) < len(found.counts.get(c, ()))],
        missing=[c for c in chosen if found.missing.get(c)],
    )


def skewed(found: Survey) -> np.ndarray:
    """Which numeric features are counters that spread over orders of magnitude."""
    whole = found.log.count == found.raw.count
    counter = (found.low >= 0) & (found.high > _SMALLEST_COUNTER) & whole
    return counter & (found.high > _SKEW * np.maximum(found.raw.mean, 1e-300))


def _names(found: Survey, column: str, limit: int, min_frequency: int) -> list[str]:
    # Ties by name: the order of the parts must not change the features.
    ranked = sorted(found.counts.get(column, {}).items(), key=lambda item: (-item[1], item[0]))
    return sorted(name for name, n in ranked[:limit] if n >= min_frequency)
