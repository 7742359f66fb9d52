"""The whole protocol in virtual time: shards, ledger, runners, and a network that delays, loses and repeats."""

import heapq
import itertools
import random
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from daskdml.server._check import check_trace
from daskdml.server._clock import VectorClock, shares
from daskdml.server._ledger import Ledger, Stop
from daskdml.server._optimizers import Adam
from daskdml.server._replay import replay
from daskdml.server._shard import Push, Shard
from daskdml.server._tables import Partition, Table, Update
from daskdml.server._trace import Read, Trace, TraceError


@dataclass(frozen=True)
class Scene:
    """What a simulation is to show."""

    lanes: int = 3
    parts: int = 1
    staleness: int | None = 1
    n_shards: int = 2
    epochs: int = 3
    clocks: int = 3
    loss: float = 0.0
    crashes: int = 0
    replaced: bool = True
    reassign: bool = True
    speculate: float | None = 3.0
    slow: float = 1.0
    close_after: int | None = None
    ledger_losses: int = 0
    restarts: int = 0
    moves: int = 0
    shared: bool = False
    boost: float = 0.0
    adam: bool = False
    seed: int = 0


def tables(n_shards):
    return (Table("w", 1024 * n_shards + 5, "float32"), Table("b", 3, "float64"), Table("seen", 4, "int64", "max"))


def initial(n_shards):
    rng = np.random.default_rng(7)
    return {
        "w": rng.normal(size=1024 * n_shards + 5).astype("float32"),
        "b": rng.normal(size=3),
        "seen": np.zeros(4, "int64"),
    }


def train(ticket, values):
    """Depends on every value that was read, so that a wrong read gives wrong bits."""
    rng = np.random.default_rng(ticket.id)
    w = values["w"]
    keys = None if rng.random() < 0.3 else np.sort(rng.choice(len(w), size=20, replace=False))
    step = np.float32(0.1) * (rng.normal(size=w.shape).astype("float32") - w) + np.float32(1e-3) * values["b"][0]
    updates = {"w": Update(step.astype("float32") if keys is None else step[keys].astype("float32"), keys)}
    if rng.random() < 0.7:
        updates["b"] = Update((0.1 * (w[:3] - values["b"])).astype("float16"))
    updates["seen"] = Update(np.array([ticket.clock + int(values["seen"][1])]), np.array([ticket.lane % 4]))
    return updates


@dataclass(eq=False)
class Runner:
    """A state machine as the worker's side is one: claim, read, train, push without waiting."""

    id: int
    lane: int
    generation: int
    alive: bool = True
    ended: bool = False
    lost: bool = False
    reads: int = 0
    count: int = 0
    views: dict = field(default_factory=dict)
    held: dict = field(default_factory=dict)
    sent: list = field(default_factory=list)
    acked: list = field(default_factory=list)


class Simulation:
    def __init__(self, scene):
        self.scene, self.random = scene, random.Random(scene.seed)
        self.now, self.order, self.events, self.steps = 0.0, itertools.count(), [], 0
        n = scene.n_shards
        self.partition = Partition(tables(n), n)
        self.optimizer = Adam() if scene.adam else "add"
        self.generation, self.opened = 0, 0
        self.shards = [
            Shard(i, part, self.partition.tables, self.clock(), self.optimizer, scene.staleness, record=True)
            for i, part in enumerate(self.partition.cut(initial(n)))
        ]
        self.saved = [shard.snapshot() for shard in self.shards]
        self.trace = Trace(scene.lanes, scene.parts, scene.staleness, n, boost=scene.boost)
        self.ledger = Ledger(scene.lanes, scene.parts, scene.staleness, scene.reassign, scene.speculate)
        self.closed = False
        self.open_epoch()
        self.ids = itertools.count()
        self.runners = {}
        self.caches = {}
        for lane in range(scene.lanes):
            self.start_runner(lane)
        horizon = scene.epochs * scene.clocks * 2.0
        for count, what in [
            (scene.crashes, self.crash),
            (scene.ledger_losses, self.lose_ledger),
            (scene.restarts, self.restart),
            (scene.moves, self.move),
        ]:
            for _ in range(count):
                self.at(self.random.uniform(0, horizon), what)
        if scene.restarts:
            for shard in range(n):
                self.at(self.random.uniform(0, horizon / 2), lambda shard=shard: self.save(shard))

    def clock(self):
        return VectorClock(range(self.scene.lanes), self.scene.parts)

    # Time and network

    def at(self, delay, what):
        heapq.heappush(self.events, (self.now + delay, next(self.order), what))

    def delay(self):
        return self.random.expovariate(20.0)

    def call(self, runner, serve, answered, *, wanted=lambda: True):
        """Ask until an answer comes; requests and answers may be lost, late, or come twice."""
        done = []

        def deliver():
            answer = serve()
            if self.random.random() >= self.scene.loss:
                self.at(self.delay(), lambda: receive(answer))

        def receive(answer):
            if not done and runner.alive:
                done.append(True)
                answered(answer)

        def send():
            if done or not runner.alive or not wanted():
                return
            if self.random.random() >= self.scene.loss:
                self.at(self.delay(), deliver)
                if self.random.random() < self.scene.loss:
                    # A copy that comes much later, perhaps after its sender was given up.
                    self.at(self.random.expovariate(0.3), deliver)
            if self.scene.loss:
                self.at(1.0, send)

        send()

    def run(self, limit=60_000):
        while self.events and not self.over():
            self.now, _, what = heapq.heappop(self.events)
            what()
            self.steps += 1
            assert self.steps < limit, f"no end: clocks {self.ledger.clocks}, held {self.ledger.held}"
        assert self.over(), f"nothing happens any more: clocks {self.ledger.clocks}, held {self.ledger.held}"
        # What is still on its way arrives at shards that have all of it. The last clock is applied when it is read.
        for shard in self.shards:
            shard.settle()
            self.trace.add_log(shard.index, shard.log)
        return self

    def over(self):
        live = [r for r in self.runners.values() if r.alive and r.generation == self.generation]
        return self.ledger.over and all(r.ended for r in live)

    @property
    def values(self):
        return self.partition.join([shard.view().values for shard in self.shards])

    # The driver

    def open_epoch(self):
        """Two epochs ahead, so that nobody waits at the end of one."""
        while self.opened < self.scene.epochs and (self.opened < 2 or self.ledger.finished(self.opened - 2)):
            self.ledger.open(self.opened, self.opened * self.scene.clocks, self.scene.clocks)
            self.opened += 1
        last = self.scene.epochs - 1 if self.scene.close_after is None else self.scene.close_after
        # Early stopping is decided when an epoch has ended, with the next in full swing.
        if not self.closed and self.ledger.finished(last):
            self.ledger.close(last)
            self.closed = True

    def start_runner(self, lane):
        runner = Runner(next(self.ids), lane, self.generation)
        runner.sent, runner.acked = [], [0] * self.scene.n_shards
        if self.scene.shared:
            # One copy of the parameters for all runners of a process.
            runner.views = self.caches.setdefault((self.generation, runner.id % 2), {})
        self.runners[runner.id] = runner
        self.ledger.enter(runner.id, lane)
        self.claim(runner)

    def crash(self):
        live = [r for r in self.runners.values() if not r.lost and not r.ended and r.generation == self.generation]
        if not live or (len(live) == 1 and not self.scene.replaced):
            return
        runner = self.random.choice(live)
        runner.lost = True
        self.trace.lost.append(runner.id)
        # Or it only seems lost, and goes on.
        runner.alive = self.random.random() < 0.4
        generation = self.generation

        def notice():
            if self.generation == generation:
                self.ledger.leave(runner.id)
                if self.scene.replaced:
                    self.start_runner(runner.lane)

        self.at(self.random.uniform(0, 1.0), notice)

    def lose_ledger(self):
        left = self.ledger._left
        scene = self.scene
        self.ledger = Ledger.from_applied(
            [shard.clock for shard in self.shards], scene.staleness, scene.reassign, scene.speculate
        )
        for epoch in range(self.opened):
            self.ledger.open(epoch, epoch * scene.clocks, scene.clocks)
        for runner in self.runners.values():
            if runner.generation == self.generation and not runner.ended and runner.id not in left:
                self.ledger.enter(runner.id, runner.lane, runner.held.values() if runner.alive else ())
        for runner in left:
            self.ledger.leave(runner)
        if self.closed:
            self.closed = False
        self.open_epoch()

    def move(self):
        """A backup takes over: the same state in another place."""
        shard = self.random.randrange(self.scene.n_shards)
        self.shards[shard] = Shard.restore(self.shards[shard].snapshot())

    def save(self, shard):
        self.saved[shard] = self.shards[shard].snapshot()

    def restart(self):
        """All copies of a shard are lost: everything goes back to the last snapshots."""
        if self.ledger.over:
            return
        self.generation += 1
        self.shards = [Shard.restore({**saved, "generation": self.generation}) for saved in self.saved]
        self.trace.begins[self.generation] = {shard.index: shard.sequence for shard in self.shards}
        for runner in self.runners.values():
            # Some do not hear of it.
            runner.alive &= self.random.random() < 0.5
        scene = self.scene
        self.ledger = Ledger.from_applied(
            [shard.clock for shard in self.shards], scene.staleness, scene.reassign, scene.speculate
        )
        self.opened, self.closed = 0, False
        self.open_epoch()
        for lane in range(scene.lanes):
            self.start_runner(lane)

    # A runner

    def claim(self, runner):
        def serve():
            if runner.generation != self.generation:
                return Stop("left")
            return self.ledger.claim(runner.id, self.now, holding=list(runner.held))

        def answered(reply):
            if isinstance(reply, Stop):
                runner.ended = True
            elif reply is None or reply.id in runner.held:
                self.at(self.random.uniform(0.05, 0.3), lambda: self.claim(runner))
            else:
                runner.held[reply.id] = reply
                self.read(runner, reply)

        self.call(runner, serve, answered)

    def read(self, runner, ticket):
        least = -1 if self.scene.staleness is None else ticket.clock - self.scene.staleness
        views = runner.views
        # Own updates of another optimizer than a sum cannot be added on top: they must be in what is read.
        own = runner.count if self.scene.adam and self.scene.staleness != 0 else 0
        stale = [
            shard
            for shard in range(self.scene.n_shards)
            if shard not in views or views[shard].minimum < least or views[shard].runners.get(runner.id, 0) < own
        ]
        if stale or self.random.random() < 0.5:
            shard = stale[0] if stale else self.random.randrange(self.scene.n_shards)

            def answered(view):
                if view.generation != runner.generation:
                    runner.ended = True
                    return
                if shard not in views or view.sequence >= views[shard].sequence:
                    views[shard] = view
                self.at(0.02, lambda: self.read(runner, ticket))

            self.call(
                runner,
                lambda: self.shards[shard].view(least=max(least, 0) if self.scene.staleness == 0 else None),
                answered,
            )
            return
        self.begin(runner, ticket, [views[shard] for shard in range(self.scene.n_shards)])

    def begin(self, runner, ticket, views):
        parts = [{name: array.copy() for name, array in view.values.items()} for view in views]
        replayed = {shard: [] for shard in range(self.scene.n_shards)}
        boosted = {shard: [] for shard in range(self.scene.n_shards)}
        if self.scene.staleness != 0:
            for number, own, updates in runner.sent:
                for shard, view in enumerate(views):
                    if number > view.runners.get(runner.id, 0):
                        self.add(parts[shard], updates[shard])
                        replayed[shard].append(own.id)
            before = [(own.id, updates) for _, own, updates in runner.sent if own.clock <= ticket.clock]
            latest = dict(before) if self.scene.boost else {}
            for shard, view in enumerate(views):
                more = shares(list(latest), view.clocks, self.scene.parts)
                for id_, updates in latest.items():
                    if id_ in more:
                        self.add(parts[shard], updates[shard], self.scene.boost * more[id_])
                        boosted[shard].append(id_)
        self.trace.reads.append(
            Read(
                runner.generation,
                runner.id,
                ticket,
                {shard: view.sequence for shard, view in enumerate(views)},
                {shard: dict(view.clocks) for shard, view in enumerate(views)},
                replayed,
                runner.reads,
                {shard: ids for shard, ids in boosted.items() if ids},
            )
        )
        runner.reads += 1
        duration = self.random.uniform(0.3, 0.7) * (self.scene.slow if runner.lane == 0 else 1.0)
        if self.random.random() < 0.05:
            duration *= 10
        values = self.partition.join(parts)
        self.at(duration, lambda: self.finish(runner, ticket, values))

    def add(self, values, updates, factor=None):
        for name, update in updates.items():
            keys = slice(None) if update.keys is None else update.keys
            if name == "seen":
                # As the client has it: of what a shard took from another runner in its place, this is all that is seen.
                values[name][keys] = np.maximum(values[name][keys], update.values)
            elif factor is None:
                values[name][keys] += update.values
            else:
                values[name][keys] += update.values * values[name].dtype.type(factor)

    def finish(self, runner, ticket, values):
        if not runner.alive:
            return
        runner.count += 1
        runner.sent.append((runner.count, ticket, self.partition.cut_updates(train(ticket, values))))
        for shard in range(self.scene.n_shards):
            if runner.acked[shard] == runner.count - 1:
                self.push(runner, shard)
        self.claim(runner)

    def push(self, runner, shard):
        """The next push to a shard goes when the one before is acknowledged."""
        number, ticket, updates = runner.sent[runner.acked[shard]]

        def answered(applied):
            if applied.status == "fenced":
                runner.ended = True
                return
            runner.acked[shard] = number
            if min(runner.acked) == number and all(at >= number for at in runner.acked):
                self.report(runner, ticket)
            if runner.acked[shard] < runner.count:
                self.push(runner, shard)

        message = Push(runner.generation, runner.id, ticket, updates[shard])
        self.call(runner, lambda: self.shards[shard].handle(message), answered)

    def report(self, runner, ticket):
        def serve():
            if runner.generation == self.generation:
                self.ledger.done(ticket, runner.id, self.now)
                self.open_epoch()

        self.call(runner, serve, lambda _: runner.held.pop(ticket.id, None))


def verify(simulation):
    """The trace holds, and to execute it again gives the same bits."""
    trace, scene = Trace.from_json(simulation.trace.to_json()), simulation.scene
    assert trace == simulation.trace
    try:
        found = check_trace(trace)
    except TraceError as error:
        # Snapshots of different moments: of one shard a read of staleness 0 may contain a clock too many.
        assert scene.staleness == 0 and scene.restarts and "contained more" in str(error)
        return None
    try:
        again = replay(
            trace, simulation.partition, initial(scene.n_shards), train, simulation.optimizer, scene.staleness
        )
    except TraceError as error:
        # Snapshots of different moments: what was read of one shard is undone, what came of it is in another.
        assert scene.restarts and scene.staleness != 0 and "undone" in str(error)
        again = {}
    for name, values in again.items():
        np.testing.assert_array_equal(values, simulation.values[name], err_msg=name)
    wanted = scene.epochs if scene.close_after is None else scene.close_after + 1
    applied = {id_ for _, id_, _ in trace.logs[0]}
    everything = itertools.product(range(wanted * scene.clocks), range(scene.lanes), range(scene.parts))
    assert applied >= set(everything)
    # Killed runners have left all their reads here, so nothing is applied without one.
    read = {(read.runner, read.ticket.id) for read in trace.reads}
    assert read >= {(runner, id_) for log in trace.logs.values() for _, id_, runner in log}
    if scene.close_after is None:
        assert len(applied) == wanted * scene.clocks * scene.lanes * scene.parts
    return found


scenes = st.builds(
    Scene,
    lanes=st.integers(1, 5),
    parts=st.integers(1, 3),
    staleness=st.sampled_from([0, 0, 1, 2, 3, None]),
    n_shards=st.integers(1, 3),
    epochs=st.integers(1, 3),
    clocks=st.integers(1, 3),
    loss=st.sampled_from([0.0, 0.1, 0.3]),
    crashes=st.integers(0, 3),
    replaced=st.booleans(),
    reassign=st.booleans(),
    speculate=st.sampled_from([None, 1.5, 3.0]),
    slow=st.sampled_from([1.0, 4.0]),
    close_after=st.none() | st.just(0),
    ledger_losses=st.integers(0, 1),
    restarts=st.integers(0, 2),
    moves=st.integers(0, 3),
    shared=st.booleans(),
    boost=st.sampled_from([0.0, 0.0, 0.5]),
    adam=st.booleans(),
    seed=st.integers(0, 2**32),
)
quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


# A runner that only seemed lost pushes what another has pushed in its place, and goes on from its own.
OVERTAKEN = Scene(
    staleness=None, loss=0.3, crashes=3, reassign=False, speculate=None, slow=4.0, ledger_losses=1, moves=1,
    shared=True, boost=0.5, adam=True, seed=114,
)  # fmt: skip


@quick
@given(scenes)
@example(OVERTAKEN)
def test_every_schedule_ends_keeps_the_invariants_and_can_be_replayed(scene):
    verify(Simulation(scene).run())


@pytest.mark.parametrize("staleness", [0, 1, None])
def test_nothing_but_the_order_of_arrival_changes(staleness):
    scene = Scene(lanes=4, parts=2, staleness=staleness, n_shards=3, loss=0.2, speculate=None, moves=2)
    results = [Simulation(replace(scene, seed=seed)).run() for seed in range(4)]
    found = [verify(result) for result in results]
    one = results[0].values
    if staleness == 0:
        for other in results[1:]:
            for name, values in one.items():
                np.testing.assert_array_equal(values, other.values[name])
        assert all(f["staleness_max"] == f["replayed"] == 0 for f in found)
    else:
        assert any(f["replayed"] for f in found)
    if staleness:
        assert max(f["staleness_max"] for f in found) == staleness


def test_chaos_of_everything_at_once():
    found = [
        verify(
            Simulation(
                Scene(4, 2, staleness, 3, 3, 4, 0.3, 3, seed % 2 == 0, ledger_losses=1, moves=3, slow=4.0, seed=seed)
            ).run()
        )
        for staleness in (1, 3, None)
        for seed in range(4)
    ]
    assert sum(f["duplicates"] for f in found) > 0
    assert sum(f["replayed"] for f in found) > 0


@pytest.mark.parametrize("seed", range(3))
def test_a_new_generation_undoes_what_was_not_in_the_snapshots(seed):
    simulation = Simulation(Scene(3, 2, 2, 2, 3, 4, restarts=2, seed=seed)).run()
    verify(simulation)
    assert simulation.generation == 2 and set(simulation.trace.begins) == {1, 2}


def test_idle_runners_help_a_slow_one():
    times = {}
    for reassign in (False, True):
        scene = Scene(4, 4, 1, 1, 3, 6, reassign=reassign, speculate=None, slow=8.0)
        simulation = Simulation(scene).run()
        verify(simulation)
        times[reassign] = simulation.now
    assert times[True] < 0.6 * times[False]
