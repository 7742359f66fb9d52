"""The figures promised for real data: default settings except the epochs, and no worse with more replicas."""

import numpy as np
import pytest

from daskdml.io import read_table
from daskdml.workflow import train

pytestmark = pytest.mark.data


def accuracies(*arguments, replicas=(1, 8), **options):
    return [train(*arguments, replicas=n, **options).test["accuracy"] for n in replicas]


def test_covtype(shared_data):
    found = accuracies(shared_data / "covtype.parquet", "Cover_Type", epochs=5)
    assert min(found) >= 0.70 and min(found) >= found[0] - 0.01


def test_a9a(shared_data):
    found = accuracies(shared_data / "a9a.gz", epochs=5)
    assert min(found) >= 0.845 and min(found) >= found[0] - 0.01


def test_a9a_on_its_own_test_file(shared_data):
    model = train(shared_data / "a9a.gz", epochs=5, test_size=0, replicas=2).model
    rows = read_table(shared_data / "a9a.t.gz", n_features=123, zero_based=False)
    parts = [part.compute(scheduler="sync") for part in rows.parts]
    right = sum((model.predict(X) == y).sum() for X, y in parts)
    assert right / rows_in(parts) >= 0.845


def rows_in(parts):
    return sum(len(y) for _, y in parts)


@pytest.mark.slow
def test_kddcup_with_its_text_columns_and_23_classes(shared_data):
    found = accuracies(shared_data / "kddcup99_train.parquet", "label", epochs=2)
    assert min(found) >= 0.98 and min(found) >= found[0] - 0.01


def test_taxi_trips_from_a_glob_with_the_duration_made_in_dask(shared_data):
    trips = read_table(f"{shared_data}/taxi/*.parquet").frame()
    spent = trips["lpep_dropoff_datetime"] - trips["lpep_pickup_datetime"]
    trips = trips.assign(duration=spent.dt.total_seconds() / 60)
    trips = trips[(trips["duration"] > 1) & (trips["duration"] <= 60)]
    # What the trip cost is known only after it: the fare would tell its duration.
    known = ["lpep_pickup_datetime", "PULocationID", "DOLocationID", "trip_distance", "passenger_count", "RatecodeID"]
    results = [train(trips[[*known, "duration"]], "duration", epochs=5, replicas=n) for n in (1, 8)]
    errors = [r.test["rmse"] for r in results]
    assert max(errors) < 6.5 and max(errors) <= errors[0] * 1.02
    assert results[0].baseline["rmse"] == pytest.approx(9.3, abs=0.3)


def test_a_headerless_csv(shared_data):
    result = train(shared_data / "protein.csv.gz", "column_9", epochs=5, replicas=2)
    assert result.task == "regression" and np.isfinite(result.test["r2"]) and result.test["r2"] > 0.2


def test_house_prices_in_dollars(shared_data):
    results = [train(shared_data / "california_housing.parquet", "medianHouseValue", replicas=n) for n in (1, 4)]
    assert max(r.test["rmse"] for r in results) < 75_000
    assert results[0].baseline["rmse"] == pytest.approx(115_000, abs=3_000)
