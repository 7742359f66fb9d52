import bz2
import gzip
import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr
from sklearn.datasets import dump_svmlight_file, load_svmlight_file

from daskdml.data import CacheSpec, as_dataset, cache_usage, release_cache, stream
from daskdml.io import InputError, read_table

ROWS = 500


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    values = {"a": rng.normal(size=ROWS), "b": rng.integers(0, 9, ROWS).astype(float), "c": rng.normal(size=ROWS)}
    return pd.DataFrame(values).round(6)


def write_csv(frame, folder):
    frame.to_csv(folder / "x.csv", index=False)
    return folder / "x.csv"


def write_gzip_csv(frame, folder):
    frame.to_csv(folder / "named_wrongly.txt", index=False, sep=";", compression="gzip")
    return folder / "named_wrongly.txt"


def write_parquet(frame, folder):
    frame.to_parquet(folder / "x.parquet", row_group_size=77, index=False)
    return folder / "x.parquet"


def write_parquet_folder(frame, folder):
    frame.iloc[:200].to_parquet(folder / "1.parquet", index=False)
    frame.iloc[200:].to_parquet(folder / "2.parquet", index=False)
    return folder


def write_zarr(frame, folder):
    group = zarr.open_group(folder / "x.zarr", mode="w")
    for name in frame:
        group.create_array(name, data=frame[name].to_numpy(), chunks=(64,))
    return folder / "x.zarr"


def write_xarray(frame, folder):
    features = xr.DataArray(frame.to_numpy(), dims=("row", "name"), coords={"name": list(frame)})
    xr.Dataset({"features": features}).chunk(row=64).to_zarr(folder / "x.zarr")
    return folder / "x.zarr"


WRITERS = [write_csv, write_gzip_csv, write_parquet, write_parquet_folder, write_zarr, write_xarray]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("block_bytes", [None, 2000])
def test_every_reader_returns_the_rows_in_order(write, block_bytes, frame, tmp_path):
    table = read_table(write(frame, tmp_path), block_bytes=block_bytes)
    assert (table.n_parts > 1) == (block_bytes == 2000 or write is write_parquet_folder)
    got = table.frame().compute(scheduler="sync").reset_index(drop=True)[list(frame)]
    pd.testing.assert_frame_equal(got, frame, check_dtype=False)
    parts = pd.concat([p.compute(scheduler="sync") for p in table.parts], ignore_index=True)
    pd.testing.assert_frame_equal(parts[list(frame)], frame, check_dtype=False)


@pytest.mark.parametrize("write", WRITERS)
def test_every_reader_reads_only_wanted_columns(write, frame, tmp_path):
    table = read_table(write(frame, tmp_path), columns=["c", "a"])
    assert table.columns == ["c", "a"]
    assert list(table.parts[0].compute(scheduler="sync").columns) == ["c", "a"]


@pytest.mark.parametrize("write", WRITERS)
def test_every_reader_names_close_columns(write, frame, tmp_path):
    with pytest.raises(InputError, match=r"no (column|variable) 'aa' in .*; did you mean 'a'\?"):
        read_table(write(frame.rename(columns={"b": "bb"}), tmp_path), columns=["aa"])


@pytest.mark.parametrize("packed", [None, gzip.open, bz2.open])
@pytest.mark.parametrize("zero_based", [True, False])
def test_svmlight_in_pieces_equals_sklearn(packed, zero_based, tmp_path):
    X = np.round(np.random.default_rng(0).random((300, 12)) * (np.random.default_rng(1).random((300, 12)) < 0.3), 3)
    X[0, 0] = 1.0
    y = np.arange(300) % 2 * 2 - 1
    plain = tmp_path / "plain"
    dump_svmlight_file(X, y, str(plain), zero_based=zero_based)
    path = plain
    if packed:
        path = tmp_path / "packed"
        with packed(path, "wb") as file:
            file.write(plain.read_bytes())
    table = read_table(path, block_bytes=1500)
    pieces = [p.compute(scheduler="sync") for p in table.parts]
    expected, labels = load_svmlight_file(str(plain), zero_based=zero_based)
    assert table.n_parts > 2 and table.sparse and table.rows == 300 and table.zero_based == zero_based
    assert {p[0].shape[1] for p in pieces} == {expected.shape[1]}
    np.testing.assert_allclose(np.vstack([p[0].toarray() for p in pieces]), expected.toarray(), rtol=1e-6)
    np.testing.assert_array_equal(np.concatenate([p[1] for p in pieces]), labels)


def test_svmlight_features_unknown_to_the_model_are_left_out_with_a_warning(tmp_path):
    (tmp_path / "x").write_text("1 1:1 3:5\n-1 2:2\n")
    with pytest.warns(UserWarning, match="1 values of features beyond the 2 known"):
        X, _ = read_table(tmp_path / "x", n_features=2, zero_based=False).parts[0].compute(scheduler="sync")
    assert X.toarray().tolist() == [[1, 0], [0, 2]]


@pytest.mark.parametrize("groups, parts", [(1, 8), (4, 8), (10, 10)])
def test_row_groups_are_cut_no_finer_than_is_of_use(groups, parts, tmp_path):
    rows = np.arange(800_000.0).reshape(-1, 2)
    table = pa.table({"a": rows[:, 0], "b": rows[:, 1]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=len(rows) // groups)
    table = read_table(tmp_path / "x.parquet", block_bytes=2**20)
    assert table.n_parts == parts
    np.testing.assert_array_equal(table.frame().compute(scheduler="sync").to_numpy(), rows)
    # Where memory asks for it they are.
    assert read_table(tmp_path / "x.parquet", block_bytes=2**16).n_parts >= 20


def test_parquet_files_of_different_types_agree(tmp_path):
    pq.write_table(pa.table({"a": pa.array([1], pa.int32()), "gap": pa.nulls(1)}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": pa.array([2.5]), "gap": pa.array([7.0])}), tmp_path / "2.parquet")
    got = read_table(f"{tmp_path}/*.parquet").frame().compute(scheduler="sync")
    assert got["a"].tolist() == [1.0, 2.5] and np.isnan(got["gap"].iloc[0]) and got["gap"].iloc[1] == 7


def test_parquet_files_that_cannot_agree_are_named(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": ["x"]}), tmp_path / "2.parquet")
    with pytest.raises(InputError, match=r"2\.parquet has other columns than .*1\.parquet"):
        read_table(tmp_path)


def test_hive_folders_become_a_column(tmp_path):
    for year in (2023, 2024):
        (tmp_path / f"year={year}").mkdir()
        pq.write_table(pa.table({"a": [1.0]}), tmp_path / f"year={year}" / "x.parquet")
    assert read_table(tmp_path).frame().compute(scheduler="sync")["year"].tolist() == [2023, 2024]


def wide(n_rows):
    """Runs of floating-point columns by rows, between others of every kind, and a run that is too short."""
    rng = np.random.default_rng(0)
    run = {f"a{k}": rng.standard_normal(n_rows).astype("f4") for k in range(37)}
    doubles = {f"d{k}": rng.standard_normal(n_rows) for k in range(9)}
    gaps = pa.array(rng.standard_normal(n_rows), mask=rng.random(n_rows) < 0.2)
    few = {f"s{k}": rng.standard_normal(n_rows).astype("f4") for k in range(3)}
    between = {"label": rng.integers(0, 2, n_rows), "text": [str(k) for k in range(n_rows)]}
    return pa.table(run | between | doubles | {"d_gap": gaps} | few)


@pytest.mark.parametrize("block_bytes", [10**9, 30_000, 3_000])
@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_many_columns_of_numbers_are_those_of_the_file(tmp_path, compression, block_bytes):
    table = wide(3_000)
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=700, compression=compression)
    got = read_table(tmp_path, block_bytes=block_bytes)
    frame = got.frame().compute(scheduler="sync").reset_index(drop=True)
    pd.testing.assert_frame_equal(frame, table.to_pandas(), check_dtype=False)
    assert frame.drop(columns="text").dtypes.tolist() == got.meta.drop(columns="text").dtypes.tolist()
    part = got.frame().partitions[0][["a3", "label", "d_gap"]].compute(scheduler="sync")
    pd.testing.assert_frame_equal(part, frame[["a3", "label", "d_gap"]].iloc[: len(part)], check_dtype=False)


def test_many_columns_of_files_that_differ(tmp_path):
    for year, kind in ((2023, "f4"), (2024, "f8")):
        (tmp_path / f"year={year}").mkdir()
        columns = {f"a{k}": np.full(5, year + k, kind) for k in range(10)}
        if year == 2024:
            del columns["a4"]
        pq.write_table(pa.table(columns), tmp_path / f"year={year}" / "x.parquet")
    got = read_table(tmp_path).frame().compute(scheduler="sync").reset_index(drop=True)
    assert (got.dtypes.drop(["year", "a4"]) == np.float64).all() and got["a4"].isna().tolist() == [False] * 5 + [
        True
    ] * 5
    for k in set(range(10)) - {4}:
        assert got[f"a{k}"].tolist() == (got["year"] + k).tolist()


def test_a_parquet_file_that_became_shorter_is_named(tmp_path):
    pq.write_table(wide(300), tmp_path / "x.parquet")
    part = read_table(tmp_path, block_bytes=10**9).parts[-1]
    pq.write_table(wide(20), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"x\.parquet holds \d+ rows where it had \d+"):
        part.compute(scheduler="sync")


def test_of_many_columns_few_are_in_memory_at_a_time(tmp_path):
    # In a process of its own, for nobody else's memory.
    rng = np.random.default_rng(0)
    # As pandas and Arrow write by default: a dictionary for each column, whatever is in it.
    columns = {f"a{k}": rng.integers(0, 10**5, 100_000).astype("f4") for k in range(160)}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    code = (
        "import sys, pyarrow as pa; from daskdml.io import read_table;"
        "part = read_table(sys.argv[1]).parts[0].compute(scheduler='sync');"
        "print(part.shape[1], pa.default_memory_pool().max_memory())"
    )
    shown = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True).stdout
    width, most = map(int, shown.split())
    assert width == 160 and most < 160 * 100_000 * 4


def test_training_takes_the_rows_as_they_were_read(tmp_path, monkeypatch):
    from daskdml.data import Target, _decode, as_dataset

    pq.write_table(wide(500).select([f"a{k}" for k in range(12)] + ["label"]), tmp_path / "x.parquet")
    frame = read_table(tmp_path).frame()
    monkeypatch.setattr(_decode, "_gather", None)
    data = as_dataset(frame.drop(columns="label"), frame["label"], target=Target(np.array([0, 1])))
    X = np.concatenate([recipe.resolve().X for recipe in data.recipes])
    np.testing.assert_array_equal(X, wide(500).select([f"a{k}" for k in range(12)]).to_pandas().to_numpy())


def test_only_the_target_is_read_where_the_format_allows(frame, tmp_path):
    table = read_table(write_parquet(frame, tmp_path), block_bytes=2000)
    narrow = table.only(["b"])
    assert narrow.n_parts == table.n_parts
    assert [list(p.compute(scheduler="sync").columns) for p in narrow.parts] == [["b"]] * table.n_parts


def test_a_frame_reads_only_the_columns_that_are_used(frame, tmp_path, monkeypatch):
    from daskdml.io import _parquet

    write_parquet(frame, tmp_path)
    asked = []
    load_slice = _parquet.load_slice

    def watched(part, schema, only=None):
        asked.append(only)
        return load_slice(part, schema, only)

    monkeypatch.setattr(_parquet, "load_slice", watched)
    table = read_table(tmp_path, block_bytes=2000)
    labels = table.frame()["b"].compute(scheduler="sync")
    pd.testing.assert_series_equal(labels.reset_index(drop=True), frame["b"], check_dtype=False)
    assert set(asked) == {("b",)}
    rest = table.frame().drop(columns="b").compute(scheduler="sync")
    assert list(rest.columns) == [c for c in frame if c != "b"]
    assert set(asked[table.n_parts :]) == {tuple(rest.columns)}


def test_csv_without_names_and_with_gaps_text_and_times(tmp_path):
    (tmp_path / "bare.csv").write_text("1,2.5\n3,4\n")
    assert read_table(tmp_path / "bare.csv").columns == ["column_0", "column_1"]
    (tmp_path / "full.csv").write_text("n,t,s,ok\n1,2024-01-01,x,true\nNA,,,false\n")
    table = read_table(tmp_path / "full.csv")
    got = table.frame().compute(scheduler="sync")
    assert got["n"].isna().tolist() == [False, True] and str(got["t"].dtype).startswith("datetime64")
    assert got["s"].isna().tolist() == [False, True] and got["ok"].tolist() == [True, False]


def test_text_is_kept_as_text_where_asked(tmp_path):
    (tmp_path / "x.csv").write_text("zip,y\n01234,1\n99999,2\n")
    assert read_table(tmp_path / "x.csv", text=["zip"]).frame().compute(scheduler="sync")["zip"].tolist() == [
        "01234",
        "99999",
    ]


def test_zarr_of_three_dimensions_is_flattened(tmp_path):
    data = np.arange(24.0).reshape(4, 2, 3)
    zarr.create_array(str(tmp_path / "x.zarr"), data=data)
    got = read_table(tmp_path / "x.zarr").frame().compute(scheduler="sync")
    np.testing.assert_array_equal(got.to_numpy(), data.reshape(4, 6))


def csv_lines(n, bad):
    lines = ["a,b,c", *(f"{i},2,x" for i in range(n))]
    lines[60_000] = bad
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("1,2", "line 60001: 2 fields where there should be 3"),
        ("1,2,3,4", "line 60001: 4 fields where there should be 3"),
        ("oops,2,x", "line 60001: column 'a' holds 'oops' but numbers"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_bad_csv_line_is_named_with_its_file(bad, message, packed, tmp_path):
    path = tmp_path / "x.csv"
    body = csv_lines(200_000, bad).encode()
    path.write_bytes(gzip.compress(body) if packed else body)
    with pytest.raises(InputError, match=f"x.csv, {message}") as caught:
        read_table(path, block_bytes=300_000).frame().compute(scheduler="sync")
    assert "\n" not in str(caught.value)


def test_a_bad_csv_line_in_a_late_block_is_numbered_from_the_start_of_the_file(tmp_path):
    lines = ["a,b", *(f"{i},{i}" for i in range(400_000))]
    lines[123_456] = "1,2,3"
    (tmp_path / "x.csv").write_text("\n".join(lines))
    table = read_table(tmp_path / "x.csv", block_bytes=400_000)
    with pytest.raises(InputError, match="line 123457: 3 fields where there should be 2"):
        for part in table.parts:
            part.compute(scheduler="sync")


def test_a_bad_svmlight_line_is_named(tmp_path):
    (tmp_path / "x").write_text("1 1:1\n" * 60 + "1 1:1 q:2\n" + "1 1:1\n")
    with pytest.raises(InputError, match="x, line 61: '1 1:1 q:2' is no svmlight row"):
        read_table(tmp_path / "x", format="svmlight")


CONTENTS = {
    b"": "is empty",
    b"\n\n": "holds no rows",
    b"a,b\n": "no rows",
    b"\x89HDF\r\n\x1a\n....": "is HDF5",
    b"PK\x03\x04....": "a ZIP archive or a spreadsheet",
    b"\x00\x01\x02\x03" * 9: "unknown binary format",
    b'{"a": 1}\n': "looks like JSON",
    b"PAR1....": "not a readable Parquet file",
    b"a,\xff\n1,2\n" * 3: "not UTF-8",
    b"a,a\n1,2\n": "the column 'a' twice",
}


@pytest.mark.parametrize("content", CONTENTS, ids=list(CONTENTS.values()))
def test_a_file_that_cannot_be_read_is_named_in_one_line(content, tmp_path):
    path = tmp_path / "x.data"
    path.write_bytes(content)
    with pytest.raises(InputError, match=CONTENTS[content]) as caught:
        read_table(path)
    assert "x.data" in str(caught.value) and "\n" not in str(caught.value)


def test_paths_that_lead_nowhere_are_named(tmp_path, frame):
    with pytest.raises(InputError, match="no such file: .*nothing.csv"):
        read_table(tmp_path / "nothing.csv")
    with pytest.raises(InputError, match="no file matches"):
        read_table(f"{tmp_path}/*.csv")
    with pytest.raises(InputError, match="holds no data files"):
        read_table(tmp_path)
    with pytest.raises(InputError, match="no input files"):
        read_table([])
    with pytest.raises(InputError, match="remote addresses"):
        read_table("s3://bucket/x.parquet")
    write_csv(frame, tmp_path)
    write_parquet(frame, tmp_path)
    with pytest.raises(InputError, match="of one format"):
        read_table(tmp_path)


def test_parquet_without_rows_is_refused(tmp_path):
    pq.write_table(pa.table({"a": pa.array([], pa.float64())}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="holds no rows"):
        read_table(tmp_path / "x.parquet")


def test_zarr_arrays_of_other_lengths_are_refused(tmp_path):
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    group.create_array("x", data=np.zeros((4, 2)))
    group.create_array("y", data=np.zeros(3))
    with pytest.raises(InputError, match="'y' has 3 rows but 'x' has 4"):
        read_table(tmp_path / "x.zarr")


def test_numeric_reads_what_is_no_number_late_in_a_csv_as_missing(tmp_path):
    (tmp_path / "x.csv").write_text(csv_lines(200_000, "oops,2,x"))
    got = read_table(tmp_path / "x.csv", block_bytes=300_000, numeric=["a"]).frame().compute(scheduler="sync")
    assert np.flatnonzero(got["a"].isna()).tolist() == [59_999] and got["a"].iloc[-1] == 199_999
    with pytest.raises(InputError, match="column 'a' holds 'oops'.*with --numeric a"):
        read_table(tmp_path / "x.csv", block_bytes=300_000).frame().compute(scheduler="sync")


def with_breaks(n, seed=0):
    """Rows of which many hold line breaks, doubled quotes and delimiters within quotes."""
    rng = np.random.default_rng(seed)
    pieces = np.array(["plain", "two\nlines", 'a ""word""\n', "\n\n", "x,y", "", "1,2\n3,4"])
    texts = [f'"{"".join(pieces[rng.integers(0, len(pieces), rng.integers(0, 4))])}"' for _ in range(n)]
    return ["n,text,m", *(f"{i},{text},{i % 7}" for i, text in enumerate(texts))]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("n", [30_000, 40_001])
def test_line_breaks_within_quotes_are_read_right_wherever_a_file_is_cut(n, packed, end, tmp_path):
    body = (end.join(with_breaks(n)) + end).encode()
    (tmp_path / "x.csv").write_bytes(gzip.compress(body) if packed else body)
    table = read_table(tmp_path / "x.csv", block_bytes=20_000)
    got = table.frame().compute(scheduler="sync")
    expected = pd.read_csv(io.BytesIO(body), keep_default_na=False)
    assert table.n_parts > 20 and got["n"].tolist() == list(range(n)) and got["m"].tolist() == expected["m"].tolist()
    texts = [t.replace("\r\n", "\n") for t in got["text"]]
    assert texts == [t.replace("\r\n", "\n") for t in expected["text"]]


def test_single_quotes_that_open_nothing_do_not_join_the_parts(tmp_path):
    lines = ["n,size", *(f'{i},a 5" pipe' if i == 77 else f"{i},wide" for i in range(400_000))]
    (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
    table = read_table(tmp_path / "x.csv", block_bytes=300_000)
    parts = [part.compute(scheduler="sync") for part in table.parts]
    assert table.n_parts > 10 and max(map(len, parts)) < 150_000
    assert pd.concat(parts)["n"].tolist() == list(range(400_000))


def test_a_line_break_within_quotes_that_no_sample_showed_is_named_as_a_cause(tmp_path, monkeypatch):
    monkeypatch.setattr("daskdml.io._csv.has_quotes", lambda *_: False)
    monkeypatch.setattr("daskdml.io._csv._SAMPLE", 1000)
    text = "line\n" * 200
    lines = ["n,text", *(f'{i},"{text}"' for i in range(500))]
    (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match="where a line break within quotes was taken for its end, take the break out"):
        read_table(tmp_path / "x.csv", block_bytes=20_000).frame().compute(scheduler="sync")


def owner_of(array):
    while array.base is not None:
        array = array.base
    assert array.dtype == np.uint8
    return array


def test_blocks_that_somebody_holds_are_not_written_over(tmp_path):
    """Rows of Parquet are read into memory that earlier blocks had: only once nobody has those any more."""
    rows = np.random.default_rng(0).random((8, 110_000, 10)).astype(np.float32)
    for k, part in enumerate(rows):
        pq.write_table(pa.table({f"x{j}": part[:, j] for j in range(10)}), tmp_path / f"{k}.parquet")
    data = as_dataset(read_table(tmp_path).frame(), target=None)
    with stream(data) as blocks:
        held = [block.X for block, _ in blocks]
    np.testing.assert_array_equal(held, rows)
    with stream(data) as blocks:
        owners = set()
        for k, (block, _) in enumerate(blocks):
            np.testing.assert_array_equal(block.X, rows[k])
            owners.add(id(owner_of(block.X)))
            del block
    # The one in use, and the next.
    assert len(owners) <= 3
    # The first stays in memory and keeps its place, the others go through files.
    spec = CacheSpec(data.token, rows[0].nbytes, directory=str(tmp_path / "cache"))
    try:
        for _ in range(3):
            with stream(data, cache=spec) as blocks:
                for k, (block, _) in enumerate(blocks):
                    np.testing.assert_array_equal(block.X, rows[k])
        assert cache_usage(data.token)["memory_blocks"] == 1
    finally:
        release_cache(data.token)
