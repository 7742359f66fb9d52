"""The seeds of epochs, replicas and blocks are NumPy's, computed faster."""

import numpy as np
import pytest

from daskdml.strategies import mixed_seed


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("largest", [3, 2**32, 2**40])
def test_seeds_are_those_of_a_seed_sequence(n, largest):
    for parts in np.random.default_rng(0).integers(0, largest, (200, n)).tolist():
        assert mixed_seed(*parts) == np.random.SeedSequence(parts).generate_state(1)[0]
