"""What plain Python and NumPy parts of daskdml cost: per lane, and per parameter."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from daskdml.models import Layout, LinearModel
from daskdml.numerics import BINARY, LOSSES, SCHEDULES, Settings
from daskdml.server import Ledger, Partition, Push, Shard, Table, Ticket, Update, VectorClock, thinned

_FEW, _MANY = 10, 1_000
_PARAMETERS = 1_000_000
_KEYS = 10_000


def linear_model(n_features: int, kind: type[LinearModel] = LinearModel, **more: Any) -> Any:
    """A binary model of float32."""
    settings = Settings(LOSSES["log_loss"].number, BINARY, alpha=1e-6, schedule=SCHEDULES["constant"], eta0=0.02)
    return kind(settings, 1, n_features, np.dtype("f4"), np.ones(1), np.ones(1), **more)


def _best(what: Callable[[], Any], repeats: int = 7) -> float:
    """CPU seconds of the quickest; what else runs can only add."""
    found = []
    for _ in range(repeats):
        start = time.thread_time()
        what()
        found.append(time.thread_time() - start)
    return min(found)


def _slope(cost: Callable[[int], float]) -> tuple[float, float]:
    """What something takes, and what each lane adds to it."""
    few, many = cost(_FEW), cost(_MANY)
    lane = max(0.0, (many - few) / (_MANY - _FEW))
    return max(0.0, few - lane * _FEW), lane


def _claim(lanes: int) -> float:
    """Of claims that are granted, a clock of all lanes."""
    ledger = _ledger(lanes, None)
    return _best(lambda: [ledger.claim(lane, 0.0) for lane in range(lanes)], 1) / lanes


def _refused(lanes: int) -> float:
    ledger = _ledger(lanes, 0)
    ledger.done(ledger.claim(0, 0.0), 0, 1.0)
    return _best(lambda: ledger.claim(0, 2.0))


def _done(lanes: int) -> float:
    ledger = _ledger(lanes, None)
    tickets = [ledger.claim(lane, 0.0) for lane in range(lanes)]
    return _best(lambda: [ledger.done(ticket, i, 1.0) for i, ticket in enumerate(tickets)], 1) / lanes


def _ledger(lanes: int, staleness: int | None) -> Ledger:
    ledger = Ledger(lanes, 1, staleness, reassign=False, speculate=None)
    ledger.open(1, 0, 100)
    for lane in range(lanes):
        ledger.enter(lane, lane)
    return ledger


def _shard(lanes: int, size: int = 8) -> Shard:
    clock = VectorClock(range(lanes))
    return Shard(0, {"w": np.zeros(size, "f4")}, (Table("w", size, "float32"),), clock, staleness=None)


def _pushes(lanes: int, clock: int, update: Update) -> list[Push]:
    return [Push(0, lane, Ticket(1, clock, lane), {"w": update}) for lane in range(lanes)]


def _tick(lanes: int) -> float:
    shard, pushes = _shard(lanes), _pushes(lanes, 0, Update(np.zeros(8, "f4")))
    return _best(lambda: [shard.handle(push) for push in pushes], 1) / lanes


def _view(lanes: int) -> float:
    """Of an answer at both ends."""
    shard = _shard(lanes)
    for push in _pushes(lanes, 0, Update(np.zeros(8, "f4"))):
        shard.handle(push)
    return _best(lambda: pickle.loads(pickle.dumps(shard.view())))


def _at_shards() -> dict[str, float]:
    """Of a parameter."""
    shard, clock = _shard(1, _PARAMETERS), iter(range(100))
    dense = Update(np.zeros(_PARAMETERS, "f4"))
    sparse = Update(np.zeros(_KEYS, "f4"), np.arange(0, _PARAMETERS, _PARAMETERS // _KEYS))
    return {
        "apply": _best(lambda: shard.handle(_pushes(1, next(clock), dense)[0])) / _PARAMETERS,
        "apply_key": _best(lambda: shard.handle(_pushes(1, next(clock), sparse)[0])) / _KEYS,
        "pull": _best(shard.view) / _PARAMETERS,
    }


def _at_clients() -> float:
    """What a replica does with each parameter in a clock, two of its own updates being added on top."""
    model = linear_model(_PARAMETERS)
    layout = Layout(model)
    tables = tuple(Table(f.name, f.size, f.dtype.name) for f in layout.fields)
    partition = Partition(tables, 2)
    views = partition.cut(layout.flat(model.init()))
    own = np.zeros(_PARAMETERS, "f4")

    def clock() -> None:
        before = partition.join(views)
        for _ in range(2):
            before["coef"] += own
        state = layout.state({name: array.copy() for name, array in before.items()})
        changes = layout.changes(before, model.settled(state), 0.5)
        partition.cut_updates({name: thinned(change) for name, change in changes.items()})

    return _best(clock) / _PARAMETERS


def _at_rounds() -> dict[str, dict[str, float]]:
    """By synchronous strategy: what a replica begins with, what two bring together, the end of a round."""
    model = linear_model(_PARAMETERS)
    state = model.init()
    gradient = model.zero_gradient(state)
    gradient.rows[0] = 1.0
    everything = np.ones(1, dtype=bool)
    seconds = {
        "copy": {"BSP": _best(lambda: model.zero_gradient(state)), "Averaging": _best(lambda: model.copy(state))},
        "combine": {
            "BSP": _best(lambda: model.sum_gradients(gradient, gradient)),
            "Averaging": _best(lambda: model.mean(state, state, 0.5)),
        },
        "agree": {
            "BSP": _best(lambda: model.step(model.copy(state), gradient, everything)),
            "Averaging": _best(lambda: model.outer_step(state, state, None, 1.0, 0.0)),
        },
    }
    return {what: {name: s / _PARAMETERS for name, s in each.items()} for what, each in seconds.items()}


def parts() -> dict[str, Any]:
    """All of them, by the names of `Costs`."""
    claim, _ = _slope(_claim)
    _, claim_lane = _slope(_refused)
    done, done_lane = _slope(_done)
    tick, tick_lane = _slope(_tick)
    _, view_lane = _slope(_view)
    lanes = {"claim": claim, "claim_lane": claim_lane, "done": done, "done_lane": done_lane}
    lanes |= {"tick": tick, "tick_lane": tick_lane, "view_lane": view_lane / 2}
    return lanes | _at_shards() | {"train": _at_clients()} | _at_rounds()
