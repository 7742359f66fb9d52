"""Class probabilities from scores."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, softmax


def logistic(scores: np.ndarray) -> np.ndarray:
    """Of ``log_loss``: the logistic function; one-versus-all scores (n, K) are normalised to sum 1."""
    if scores.ndim == 1:
        # Written where they stay: copies would cost as much as the products that scores are made of.
        both = np.empty((len(scores), 2), np.result_type(scores.dtype, np.float32))
        expit(scores, out=both[:, 1])
        np.subtract(1, both[:, 1], out=both[:, 0])
        return both
    p = expit(scores)
    p /= p.sum(axis=1, keepdims=True)
    return p


def multinomial(scores: np.ndarray) -> np.ndarray:
    """Of ``multinomial``: the softmax."""
    return softmax(scores, axis=1)


def modified_huber(scores: np.ndarray) -> np.ndarray:
    """Of ``modified_huber``: (clip(score) + 1) / 2 (Zadrozny and Elkan 2002, appendix B).

    Where every class gets 0 they get equal shares.
    """
    if scores.ndim == 1:
        p = (np.clip(scores, -1, 1) + 1) / 2
        return np.stack([1 - p, p], axis=1)
    p = (np.clip(scores, -1, 1) + 1) / 2
    nothing = p.sum(axis=1) == 0
    p[nothing] = 1
    return p / p.sum(axis=1, keepdims=True)


PROBABILITIES = {"log_loss": logistic, "multinomial": multinomial, "modified_huber": modified_huber}
"""By loss: what turns its scores, (n,) or (n, K), into probabilities (n, n_classes)."""
