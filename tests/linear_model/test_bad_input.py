"""What is refused, alike in memory and of Dask."""

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from daskdml.linear_model import SGDClassifier, SGDRegressor

X, Y = np.random.default_rng(0).standard_normal((60, 3)), np.arange(60) % 2


@pytest.mark.parametrize("estimator", [SGDClassifier, SGDRegressor])
def test_a_frame_without_rows(estimator):
    frame = dd.from_pandas(pd.DataFrame({"a": [1.0, 2.0], "y": [0, 1]}), npartitions=2)
    frame = frame[frame["a"] > 5]
    with pytest.raises(ValueError, match=r"^Found array with 0 sample\(s\) .*no block .*has a row"):
        estimator().fit(frame[["a"]], frame["y"])
