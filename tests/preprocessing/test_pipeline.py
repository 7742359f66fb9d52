import pickle

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from daskdml.io import InputError, load_model, save_model
from daskdml.preprocessing import SparseScaler, TablePipeline

N = 240


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "number": np.where(rng.random(N) < 0.1, np.nan, rng.normal(7, 3, N)),
            "big": rng.normal(1e9, 1.0, N),
            "bytes": np.floor(np.exp(rng.normal(3, 3.5, N))),
            "flag": rng.random(N) < 0.3,
            "nullable": pd.array(np.where(rng.random(N) < 0.1, None, rng.integers(0, 5, N)), dtype="Int64"),
            "constant": 3.0,
            "empty": np.nan,
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 10**6, N), unit="s"),
            "span": pd.to_timedelta(rng.integers(0, 100, N), unit="s"),
            "text": rng.choice(["red", "green", "blue", None], N),
            "kind": pd.Categorical(rng.choice(["x", "y"], N)),
        }
    )


def names(pipeline):
    return pipeline.get_feature_names_out().tolist()


@pytest.mark.parametrize("partitions", [1, 4])
def test_dask_and_pandas_agree_and_are_standardised(table, partitions):
    pipeline = TablePipeline().fit(dd.from_pandas(table, npartitions=partitions))
    alone = TablePipeline().fit(table)
    assert names(pipeline) == names(alone)
    X = pipeline.transform(table)
    assert X.dtype == np.float32 and np.isfinite(X).all()
    np.testing.assert_allclose(X, alone.transform(table), rtol=1e-4, atol=1e-5)
    lazy = pipeline.transform(dd.from_pandas(table, npartitions=partitions))
    assert lazy.dtype == np.float32 and lazy.shape[1] == X.shape[1]
    np.testing.assert_array_equal(lazy.compute(scheduler="sync"), X)
    dense = [n for n in names(pipeline) if "=" not in n and n not in ("constant", "empty")]
    columns = X[:, [names(pipeline).index(n) for n in dense]]
    np.testing.assert_allclose(columns.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(columns.std(axis=0), 1, atol=1e-2)


def test_values_are_what_they_should_be(table):
    pipeline = TablePipeline().fit(table)
    X = pd.DataFrame(pipeline.transform(table), columns=names(pipeline))
    expected = table["number"].fillna(table["number"].mean())
    np.testing.assert_allclose(X["number"], (expected - expected.mean()) / expected.std(ddof=0), atol=1e-5)
    assert (X[["constant", "empty"]] == 0).all().all()
    assert (X["text=red"] == (table["text"] == "red")).all()
    assert (X["text=missing"] == table["text"].isna()).all()
    assert "text=infrequent" not in X
    logs = np.log1p(table["bytes"])
    np.testing.assert_allclose(X["log1p(bytes)"], (logs - logs.mean()) / logs.std(ddof=0), atol=1e-4)
    assert {"when", "when_day_sin", "when_week_cos", "kind=x", "kind=y", "flag", "span"} <= set(X)


def test_names_not_seen_are_the_others_or_nothing():
    seen = pd.DataFrame({"a": ["x"] * 5 + ["y"] * 5 + ["rare"], "b": ["u", "v"] * 5 + ["u"]})
    pipeline = TablePipeline().fit(seen)
    assert names(pipeline) == ["a=x", "a=y", "a=infrequent", "b=u", "b=v"]
    new = pd.DataFrame({"a": ["never", None, "y"], "b": ["never", None, "v"]})
    assert pipeline.transform(new).tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 1]]


def test_only_the_most_frequent_names_get_a_column():
    many = pd.DataFrame({"id": [f"n{i:03d}" for i in range(300) for _ in range(2)] + ["often"] * 9})
    pipeline = TablePipeline(max_categories=5).fit(dd.from_pandas(many, npartitions=3))
    assert names(pipeline) == ["id=n000", "id=n001", "id=n002", "id=n003", "id=often", "id=infrequent"]


def test_wide_output_is_sparse_and_equal():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"zone": rng.integers(0, 50, 500), "x": rng.normal(size=500)})
    dense = TablePipeline(categorical=["zone"]).fit(frame)
    wide = TablePipeline(categorical=["zone"], max_dense=10).fit(frame)
    X = wide.transform(frame)
    assert sparse.issparse(X) and X.dtype == np.float32 and X.indices.dtype == np.int32
    np.testing.assert_array_equal(X.toarray(), dense.transform(frame))
    lazy = wide.transform(dd.from_pandas(frame, npartitions=3))
    assert sparse.issparse(lazy._meta)
    np.testing.assert_array_equal(lazy.partitions[0].compute(scheduler="sync").toarray(), X[:167].toarray())


def test_it_is_saved_and_pickled_whole(table, tmp_path):
    pipeline = TablePipeline().fit(dd.from_pandas(table, npartitions=2))
    save_model(pipeline, tmp_path / "p.skops")
    for twin in (pickle.loads(pickle.dumps(pipeline)), load_model(tmp_path / "p.skops")):
        np.testing.assert_array_equal(twin.transform(table), pipeline.transform(table))
        assert names(twin) == names(pipeline)


def test_an_infinity_is_named_with_its_block(table):
    table.loc[200, "number"] = np.inf
    with pytest.raises(InputError, match="column 'number' holds an infinity in block 3"):
        TablePipeline().fit(dd.from_pandas(table, npartitions=4))
    pipeline = TablePipeline().fit(table.iloc[:100])
    with pytest.raises(InputError, match="column 'number' holds an infinity"):
        pipeline.transform(table)


def test_other_tables_are_refused(table):
    pipeline = TablePipeline().fit(table)
    with pytest.raises(InputError, match="no column 'number' in the table.*did you mean 'numbr'"):
        pipeline.transform(table.rename(columns={"number": "numbr"}))
    with pytest.raises(InputError, match="column 'big' held numbers .* but has the type"):
        pipeline.transform(table.assign(big="many"))
    with pytest.raises(InputError, match="column 'l' holds lists"):
        TablePipeline().fit(pd.DataFrame({"l": [[1], [2]]}))
    with pytest.raises(InputError, match="no columns besides the target"):
        TablePipeline().fit(pd.DataFrame(index=range(3)))
    with pytest.raises(InputError, match="no column 'zon'"):
        TablePipeline(categorical=["zon"]).fit(table)
    with pytest.raises(InputError, match="no rows to learn from"):
        TablePipeline().fit(table.iloc[:0])


def test_extra_columns_and_another_order_do_not_matter(table):
    pipeline = TablePipeline().fit(table)
    shuffled = table[table.columns[::-1]].assign(more=1)
    np.testing.assert_array_equal(pipeline.transform(shuffled), pipeline.transform(table))


def test_sparse_scaler_keeps_zeros_and_indicators(tmp_path):
    X = sparse.csr_matrix([[0, 4.0, 1.0], [2.0, -8.0, 0]])
    scaler = SparseScaler().fit(X)
    assert scaler.transform(X).toarray().tolist() == [[0, 0.5, 1.0], [1.0, -1.0, 0]]
    save_model(scaler, tmp_path / "s.skops")
    assert load_model(tmp_path / "s.skops").transform(X).nnz == X.nnz
    with pytest.raises(ValueError, match="X has 2 features, but SparseScaler is expecting 3"):
        scaler.transform(X[:, :2])
    with pytest.raises(InputError, match="feature 2 holds a NaN"):
        SparseScaler().fit(sparse.csr_matrix([[1.0, np.nan]]))
