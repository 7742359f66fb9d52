"""The benchmark of slow workers trains all rows, whichever strategy it compares."""

import pytest
from distributed import Client, LocalCluster

from benchmarks import stragglers
from daskdml import BSP, SSP, Averaging


@pytest.mark.parametrize("strategy", [Averaging(rounds_per_epoch=2), BSP(rounds_per_epoch=2), SSP(1)], ids=repr)
def test_every_strategy_is_slowed_down(strategy, monkeypatch):
    monkeypatch.setattr(stragglers, "SECONDS", 0.001)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        history = stragglers.fit(client, strategy, "permanent", 2, 2, f"test-{strategy!r}")
    assert history["rows"].sum() == 2 * 2 * stragglers.CLOCK_ROWS
    assert (
        sum(n for run, n in stragglers._rows.items() if run.startswith(f"test-{strategy!r}")) >= history["rows"].sum()
    )
