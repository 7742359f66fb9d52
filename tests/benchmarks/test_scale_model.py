"""The model of the scaling benchmark, where the answer is known."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.scale import rounds, served
from benchmarks.scale.engine import Cores, Cpu, Engine, Line, Lock
from benchmarks.scale.extrapolate import half
from benchmarks.scale.nodes import Cluster
from benchmarks.scale.rounds import Rounds
from benchmarks.scale.served import Served
from benchmarks.scale.settings import SERVED, STRATEGIES, SYNCHRONOUS, Costs, Fit, Network, Pattern
from benchmarks.scale.shards import place
from benchmarks.scale.simulate import simulate
from daskdml.strategies import _asynchronous, _dask

ROTATING = Pattern("rotating")


def rate(fit, costs=None):
    return simulate(fit, costs or Costs()).rate


def starts(fit, costs=None):
    engine = Engine()
    run = (Served if fit.strategy in SERVED else Rounds)(engine, fit, costs or Costs())
    engine.run()
    return run.starts


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("workers", [1, 3, 64])
def test_without_costs_every_strategy_trains_all_the_time(strategy, workers):
    outcome = simulate(Fit(strategy, workers, seconds=0.5), Costs())
    assert outcome.rate == pytest.approx(2.0)
    assert outcome.efficiency == pytest.approx(1.0)
    assert outcome.waiting == 0.0


@pytest.mark.parametrize("strategy", SYNCHRONOUS)
@pytest.mark.parametrize("workers", [2, 4, 8])
def test_a_round_lasts_as_long_as_its_slowest_machine(strategy, workers):
    outcome = simulate(Fit(strategy, workers, clocks=40, pattern=ROTATING), Costs())
    assert outcome.rate == pytest.approx(1 / 4)
    # Of the mean clock, which lasts 1 + 3 / workers.
    assert outcome.efficiency == pytest.approx((1 + 3 / workers) / 4)
    assert outcome.limit == "straggler wait"


def test_staleness_hides_a_slow_turn():
    fit = Fit("SSP", 4, clocks=40, pattern=ROTATING)
    # Four machines that are slow in turn need 7 seconds for 4 clocks, and rounds 16.
    assert rate(fit) / rate(replace(fit, strategy="BSP")) == pytest.approx(16 / 7)


def test_nobody_gets_far_ahead_of_a_machine_that_is_always_slow():
    fit = Fit("SSP", 4, clocks=40, pattern=Pattern("permanent"))
    assert rate(fit) == pytest.approx(1 / 4)
    assert rate(replace(fit, strategy="ASP")) == pytest.approx((3 + 1 / 4) / 4)


def test_staleness_0_waits_as_rounds_do():
    fit = Fit("SSP", 4, staleness=0, pattern=Pattern("random"), clocks=40)
    assert starts(fit) == pytest.approx(starts(replace(fit, strategy="BSP")))


@pytest.mark.parametrize("staleness", [0, 1, 3])
@pytest.mark.parametrize("strategy", ["SSP", "ESSP"])
def test_the_gate_holds(strategy, staleness):
    costs = Costs(message=0.01, tick=0.02, own={strategy: 0.05})
    fit = Fit(strategy, 5, staleness=staleness, pattern=Pattern("lognormal"), clocks=30)
    began = starts(fit, costs)
    ended = began + fit.pattern.factors(5, 30)
    for clock in range(staleness + 1, 30):
        assert began[:, clock].min() >= ended[:, clock - staleness - 1].max()


@pytest.mark.parametrize("workers", [2, 16, 64])
def test_one_shard_takes_one_update_at_a_time(workers):
    # Below saturation nobody notices; above, the shard's rate is shared.
    costs = Costs(tick=0.1)
    fit = Fit("ASP", workers, backups=0, clocks=60, warm=20)
    outcome = simulate(fit, costs)
    assert workers * outcome.rate == pytest.approx(min(workers, 1 / 0.1), rel=0.03)
    if workers > 10:
        assert outcome.limit in ("shard's order", "shard CPU")
        assert outcome.busy["shard's order"] > 0.9


def test_the_order_is_held_until_the_second_copy_has_answered():
    # Two applications and four ends of messages.
    fit = Fit("ASP", 32, clocks=60, warm=20, network=Network(latency=0.05))
    outcome = simulate(fit, Costs(tick=0.02))
    assert 32 * outcome.rate == pytest.approx(1 / (2 * 0.02 + 2 * 0.05), rel=0.05)
    assert outcome.limit == "shard's order"


def test_the_scheduler_serves_a_round_in_the_time_of_its_tasks():
    fit = Fit("BSP", 64, seconds=0.001, clocks=20)
    outcome = simulate(fit, Costs(schedule=0.01))
    # 64 replicas, 8 + 1 that combine, the end of the round and its report, which need not be over.
    assert 75 == Rounds(Engine(), fit, Costs()).tasks
    assert 1 / outcome.rate == pytest.approx(0.75, rel=0.03)
    assert outcome.limit == "scheduler"


@pytest.mark.parametrize(
    ("workers", "tasks"), [(1, 1), (4, 4), (5, 5 + 1 + 2), (8, 11), (9, 14), (1000, 1000 + 125 + 16 + 2 + 1 + 2)]
)
def test_a_round_has_the_tasks_of_its_tree(workers, tasks):
    assert Rounds(Engine(), Fit("BSP", workers), Costs()).tasks == tasks


def test_the_model_has_the_bounds_of_what_it_models():
    assert (rounds.FAN_IN, rounds.EACH_REPLICAS, rounds.EACH_BYTES) == (
        _dask._FAN_IN,
        _dask._EACH_REPLICAS,
        _dask._EACH_BYTES,
    )
    assert (served.GATHER, served.TEND) == (_asynchronous._GATHER, _asynchronous._TEND)


def test_few_replicas_agree_each_by_itself():
    fit = Fit("BSP", 4, clocks=20)
    # Half of the cost as a task ends: when the last has, four are sent, while the others ended in turn.
    assert 1 / rate(fit, Costs(schedule=0.01)) == pytest.approx(1 + 0.005 + 4 * 0.005)
    costs = Costs(fetch=0.01)
    # Each takes what three others brought, and sends as much and one more to the driver: three results of two ends.
    assert 1 / rate(fit, costs) == pytest.approx(1 + 3 * 0.02 + 0.01)


def test_parameters_leave_the_worker_that_has_them_one_by_one():
    # Three others fetch for 1 s each. When the last has trained, three sums of gradients come, 2 s each for 8 bytes.
    fit = Fit("BSP", 4, parameters=25_000, clocks=10, warm=2, network=Network(bandwidth=100_000.0))
    last = starts(fit)[:, 5] - starts(fit)[:, 5].min()
    assert sorted(last) == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert 1 / rate(fit) == pytest.approx(3 + 1 + 3 * 2)


def test_a_few_shards_stand_for_many():
    costs = Costs(message=3e-4, message_byte=1e-9, tick=1e-4, apply=1e-9, pull=1e-9, local=1e-4)
    fit = Fit("SSP", 24, seconds=0.2, parameters=10**6, shards=24, clocks=16, warm=5, seen=24)
    fit = replace(fit, network=Network(1e-4, 1e9))
    assert rate(replace(fit, seen=4), costs) == pytest.approx(rate(fit, costs), rel=0.1)


def test_who_waits_in_vain_keeps_the_ledger_busy():
    costs = Costs(claim=1e-3, claim_lane=1e-4)
    fit = Fit("SSP", 40, staleness=0, clocks=12, warm=3)
    assert rate(fit, costs) > 1.5 * rate(replace(fit, wakes_all=True), costs)
    assert simulate(replace(fit, wakes_all=True), costs).limit == "ledger"


def test_replicas_of_a_process_share_its_copy():
    costs = Costs(pull=1e-3, message=1e-3)
    fit = Fit("SSP", 4, threads=4, staleness=0, parameters=100)
    shared, apart = simulate(fit, costs), simulate(replace(fit, workers=16, threads=1), costs)
    assert fit.replicas == 16
    assert shared.busy["shard CPU"] * apart.rate < apart.busy["shard CPU"] * shared.rate * 1.01


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_seed_gives_the_same_run(strategy):
    costs = Costs(schedule=1e-3, execute=1e-3, fetch=1e-3, message=1e-3, tick=1e-3, own={strategy: 2e-3})
    fit = Fit(strategy, 70, pattern=Pattern("random"), cores=2, clocks=12, warm=3)
    assert simulate(fit, costs) == simulate(fit, costs)
    other = replace(fit, pattern=Pattern("random", seed=8))
    assert simulate(other, costs).rate != simulate(fit, costs).rate


def test_patterns():
    random = Pattern("random").factors(400, 100)
    assert random.mean() == pytest.approx(1 + 3 / 8, rel=0.02)
    assert Pattern("lognormal").factors(400, 100).mean() == pytest.approx(1.0, rel=0.02)
    assert (Pattern("random").factors(3, 100) == random[:3]).all()
    assert ROTATING.factors(3, 4).tolist() == [[4, 1, 1, 4], [1, 4, 1, 1], [1, 1, 4, 1]]
    assert Pattern("permanent").factors(2, 2).tolist() == [[4, 4], [1, 1]]


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="no strategy is called 'LSP'"):
        simulate(Fit("LSP", 2), Costs())
    with pytest.raises(ValueError, match="no pattern is called 'sometimes'"):
        simulate(Fit("BSP", 2, pattern=Pattern("sometimes")), Costs())
    with pytest.raises(ValueError, match="leaves nothing to measure"):
        simulate(Fit("BSP", 2, clocks=5, warm=4), Costs())


def test_shards_are_placed_where_least_is():
    placed = place(Fit("SSP", 4))
    assert (placed.n_shards, placed.shards, placed.ledger) == (1, [(0, 2)], 1)
    assert place(Fit("SSP", 1)).shards == [(0, None)]
    assert place(Fit("SSP", 4, backups=0)).shards == [(0, None)]
    many = place(Fit("SSP", 1000, parameters=10**9, seen=2))
    assert many.n_shards == 954 and len(many.shards) == 2


def test_half_is_found_between_two_numbers_of_workers():
    points = [{"workers": w, "efficiency": e, "limit": name} for w, e, name in [(1, 1.0, "a"), (100, 0.0, "b")]]
    assert half(points) == (pytest.approx(10.0), "b")
    assert half(points[:1]) == (None, "a")
    assert half(points[1:]) == (None, "b")


# -- engine -------------------------------------------------------------------------------------------


def test_a_line_serves_one_after_the_other():
    line = Line()
    assert [line.book(0.0, 2.0), line.book(1.0, 2.0), line.book(9.0, 1.0)] == [2.0, 4.0, 10.0]
    assert line.busy == 5.0


def test_processes_share_cores_and_leave_none_idle():
    engine, cores, ended = Engine(), Cores(2), []
    first, others = Cpu(engine, cores), [Cpu(engine, cores) for _ in range(2)]

    def job(cpu, name, seconds):
        yield from cpu.work(seconds)
        ended.append((name, engine.now))

    # One process has two jobs, which cannot run side by side; the core they leave is used by the others.
    for name, cpu, seconds in [("a", first, 2.0), ("b", first, 2.0), ("c", others[0], 1.0), ("d", others[1], 1.0)]:
        engine.spawn(job(cpu, name, seconds))
    engine.run()
    assert ended == [("c", 1.0), ("a", 2.0), ("d", 2.0), ("b", 4.0)]


def test_a_lock_is_given_in_the_order_of_asking():
    engine, held = Engine(), []
    lock = Lock(engine)

    def holder(name):
        yield from lock.acquire()
        held.append((name, engine.now))
        yield engine.now + 1.0
        lock.release()

    for name in "abc":
        engine.spawn(holder(name))
    engine.run()
    assert held == [("a", 0.0), ("b", 1.0), ("c", 2.0)]
    assert lock.busy == 3.0


def test_a_link_is_taken_at_both_ends_at_once():
    engine = Engine()
    cluster = Cluster(engine, Fit("BSP", 3, network=Network(latency=0.5, bandwidth=1000.0)), Costs())
    a, b, c = cluster.workers
    arrived = []

    def send(source, target):
        yield from cluster.wire(source, target, 5000.0)
        arrived.append(engine.now)

    engine.spawn(send(a, c))
    engine.spawn(send(b, c))
    engine.spawn(send(a, b))
    engine.run()
    # The second waits for the receiver, the third for the sender.
    assert np.sort(arrived).tolist() == [5.5, 10.5, 10.5]


def test_the_driver_hears_of_all_lanes_together():
    costs = Costs(hear={"SSP": 0.02}, report={"SSP": 0.001}, tend=0.002)
    engine = Engine()
    run = Served(engine, Fit("SSP", 1, threads=4, seconds=1.0, clocks=20), costs)
    engine.run()
    # Once a clock; when it hears of the slowest lane it waits for nobody.
    assert run.cluster.driver.cpu.busy / 20 == pytest.approx(0.02 + 4 * 0.001 + 0.002, rel=0.1)
    # Of lanes that are not in step, twenty times a second at most.
    engine = Engine()
    run = Served(
        engine, Fit("ASP", 40, seconds=0.1, clocks=40, pattern=Pattern("lognormal")), Costs(hear={"ASP": 0.02})
    )
    engine.run()
    assert run.cluster.driver.cpu.busy <= 0.02 * (engine.now / 0.05 + 40)


def test_a_busy_scheduler_handles_messages_together():
    fit = Fit("BSP", 64, seconds=0.001, clocks=20)
    costs = Costs(schedule=0.01, schedule_busy=0.005)
    assert rate(fit, costs) == pytest.approx(2 * rate(fit, replace(costs, schedule_busy=None)), rel=0.1)
    # One that has nothing else to do gains nothing.
    alone = replace(fit, workers=1, seconds=1.0)
    assert rate(alone, costs) == rate(alone, replace(costs, schedule_busy=None))
