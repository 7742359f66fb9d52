"""Numbers that are called identifiers name things: they are encoded, unless the user says otherwise."""

import numpy as np
import pandas as pd

from daskdml.preprocessing import TablePipeline


def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame({"zoneID": rng.integers(0, 4, 200), "distance": rng.random(200), "paid": rng.random(200)})


def test_an_identifier_is_a_category():
    names = list(TablePipeline().fit(table()).get_feature_names_out())
    assert "distance" in names and "paid" in names
    assert sum(str(name).startswith("zoneID") for name in names) >= 4


def test_numeric_makes_it_a_number():
    names = list(TablePipeline(numeric=["zoneID"]).fit(table()).get_feature_names_out())
    assert sorted(names) == ["distance", "paid", "zoneID"]
