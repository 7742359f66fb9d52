"""Fits with kernels that test each position: run with NUMBA_BOUNDSCHECK=1, and a cache of its own."""

import itertools
import sys

import numpy as np
from numba import config
from scipy.sparse import csr_matrix

from daskdml import BSP
from daskdml.linear_model import SGDClassifier

# Rates with every penalty; the running mean beside a penalty that shrinks so fast that factors are written back.
CASES = [
    *({"penalty": penalty, "alpha": 0.3, "eta0": 0.3} for penalty in (None, "l2", "l1", "elasticnet")),
    {"average": True, "alpha": 0.3, "eta0": 0.3},
    {"average": True, "alpha": 0.3, "eta0": 0.3, "penalty": "l1"},
    {"learning_rate": "pa1", "loss": "hinge", "penalty": None, "eta0": 1.0},
    {"learning_rate": "adagrad", "penalty": "elasticnet"},
    {"learning_rate": "normalized", "penalty": "l1"},
    {"loss": "multinomial", "alpha": 0.3, "eta0": 0.3},
    {"loss": "multinomial", "learning_rate": "adagrad"},
    {"batch_size": 7, "eta0": 0.1},
    {"strategy": BSP(1, rounds_per_epoch=3), "learning_rate": "normalized"},
    {"strategy": BSP(1, rounds_per_epoch=3), "loss": "multinomial", "learning_rate": "adagrad"},
    {"strategy": "full_batch", "loss": "modified_huber"},
    {"strategy": "full_batch", "loss": "multinomial"},
    {"strategy": "full_batch", "penalty": "l1"},
]


def main() -> None:
    assert config.BOUNDSCHECK, "positions are not tested: set NUMBA_BOUNDSCHECK=1"
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 9)) * (rng.random((60, 9)) < 0.6)
    y = rng.integers(3, size=60)
    wrong = []
    for case, rows, classes in itertools.product(CASES, (X, csr_matrix(X)), (2, 3)):
        given = {"loss": "log_loss", "learning_rate": "constant", "max_iter": 3, "tol": None, "random_state": 0} | case
        try:
            SGDClassifier(**given).fit(rows, y % classes).predict(rows)
        except IndexError as error:
            wrong.append(f"{case}, {type(rows).__name__}, {classes} classes: {error}")
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main()
