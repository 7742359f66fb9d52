"""The validation rows of data in memory: scikit-learn's split of the same random state."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit


def validation_mask(y: np.ndarray, fraction: float, random_state: Any, stratify: bool, used: np.ndarray) -> np.ndarray:
    """A boolean array, True for the rows held out.

    Raises
    ------
    ValueError
        Where either side is empty, or all held-out rows have weight 0.
    """
    splitter = (StratifiedShuffleSplit if stratify else ShuffleSplit)(test_size=fraction, random_state=random_state)
    train, held = next(splitter.split(np.zeros((len(y), 1)), y))
    if not used[held].any():
        raise ValueError("The sample weights for validation set are all zero, consider using a different random state.")
    if len(train) == 0 or len(held) == 0:
        raise ValueError(
            f"Splitting {len(y)} samples into a train set and a validation set with validation_fraction={fraction!r} "
            f"led to an empty set ({len(train)} and {len(held)} samples). Please either change validation_fraction, "
            "increase number of samples, or disable early_stopping."
        )
    mask = np.zeros(len(y), dtype=bool)
    mask[held] = True
    return mask
