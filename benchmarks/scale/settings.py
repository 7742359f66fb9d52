"""What a simulated fit is: costs, network, and the fit itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

SYNCHRONOUS = ("BSP", "Averaging")
SERVED = ("SSP", "ESSP", "ASP")
STRATEGIES = (*SYNCHRONOUS, *SERVED)


@dataclass(frozen=True)
class Costs:
    """Seconds of CPU, but for the pauses, which are seconds in which nobody works. All of them are measured.

    Parameters
    ----------
    submit, schedule, execute : float
        Of one Dask task: at the driver, at the scheduler, at the worker.
    schedule_busy : float or None
        At the scheduler where it is busy, so that it handles messages that came meanwhile together; None where that is
        no cheaper.
    task_pause : float
        From the end of a task to the beginning of one that waits for it, beside the CPU.
    fetch, fetch_byte : float
        Of a result that another worker has, at each of the two.
    message, message_byte : float
        Of a message to or from an actor, at each end.
    message_pause : float
        Of each such message.
    local : float
        Of a call of an actor in the same process.
    tend : float
        Of the driver's look at the cluster.
    claim, claim_lane : float
        Of a claim at the ledger; one that has to wait looks at every lane besides.
    done, done_lane : float
        Of a report at the ledger, and of each lane there.
    tick, tick_lane : float
        Of an update at a shard, and of each lane there.
    view_lane : float
        Of a lane's clock in what a shard answers, at each end.
    apply, apply_key, pull : float
        Of a parameter that is added to where all are, or by its key, or is copied, at a shard.
    train : float
        Of a parameter on the parameter server's clients: what is joined, copied, compared and cut.
    copy, combine, agree : dict
        By synchronous strategy, of a parameter: where a replica begins, where two meet, and at the end of a round.
    own, own_pause, report : dict
        By strategy, of a clock of a replica, whatever the parameters: at the replica, and at the driver.
    hear : dict
        By strategy on the parameter server, of the driver each time it hears of clocks, beside ``report`` for each.
    """

    submit: float = 0.0
    schedule: float = 0.0
    execute: float = 0.0
    schedule_busy: float | None = None
    task_pause: float = 0.0
    fetch: float = 0.0
    fetch_byte: float = 0.0
    message: float = 0.0
    message_byte: float = 0.0
    message_pause: float = 0.0
    local: float = 0.0
    tend: float = 0.0
    claim: float = 0.0
    claim_lane: float = 0.0
    done: float = 0.0
    done_lane: float = 0.0
    tick: float = 0.0
    tick_lane: float = 0.0
    view_lane: float = 0.0
    apply: float = 0.0
    apply_key: float = 0.0
    pull: float = 0.0
    train: float = 0.0
    copy: dict[str, float] = field(default_factory=dict)
    combine: dict[str, float] = field(default_factory=dict)
    agree: dict[str, float] = field(default_factory=dict)
    own: dict[str, float] = field(default_factory=dict)
    own_pause: dict[str, float] = field(default_factory=dict)
    report: dict[str, float] = field(default_factory=dict)
    hear: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """Each node sends and receives at once, with so many bytes a second in each direction."""

    latency: float = 0.0
    bandwidth: float = float("inf")


@dataclass(frozen=True)
class Pattern:
    """How slow a machine is at a clock, as a multiple of its usual time.

    ``rotating``: at each clock another machine is slow; ``random``: each with probability ``share``; ``permanent``:
    machine 0; ``lognormal``: every clock of every machine differs, with a mean of 1.
    """

    kind: str = "none"
    slow: float = 4.0
    share: float = 1 / 8
    sigma: float = 0.5
    seed: int = 7

    def factors(self, machines: int, clocks: int) -> np.ndarray:
        """By machine and clock; of a machine they do not depend on how many others there are, but in ``rotating``."""
        found = np.ones((machines, clocks))
        if self.kind == "rotating":
            found[np.arange(clocks) % machines, np.arange(clocks)] = self.slow
        elif self.kind == "permanent":
            found[0] = self.slow
        elif self.kind in ("random", "lognormal"):
            for machine in range(machines):
                rng = np.random.default_rng((self.seed, machine))
                if self.kind == "random":
                    found[machine] = np.where(rng.random(clocks) < self.share, self.slow, 1.0)
                else:
                    found[machine] = rng.lognormal(-(self.sigma**2) / 2, self.sigma, clocks)
        elif self.kind != "none":
            raise ValueError(f"no pattern is called {self.kind!r}: none, rotating, random, permanent or lognormal")
        return found


@dataclass(frozen=True)
class Fit:
    """A fit to be simulated.

    Parameters
    ----------
    strategy : str
        One of `STRATEGIES`.
    workers, threads : int
        Worker processes, each on a node, and replicas in each, which share one copy of the parameters.
    seconds : float
        Of training in a clock.
    parameters : int
        Of 4 bytes.
    pushed : int or None
        Entries of an update of which keys are sent too; None for all parameters, without keys. Of strategies on the
        parameter server only.
    staleness : int
        Of SSP and ESSP.
    clocks, warm : int
        How many there are, and how many of them are not measured.
    cores : int or None
        Of the one machine on which all processes run; None where each has a node.
    seen : int
        Of more shards than this as many are simulated, each like all others.
    shards : int or None
        By default as many as daskdml makes.
    backups : {1, 0}
        Second copies of shards.
    wakes_all : bool
        Whether all who wait at the ledger look again whenever something was done; by default one does, and all once the
        slowest lane has moved, as in daskdml.
    """

    strategy: str
    workers: int
    seconds: float = 1.0
    parameters: int = 20
    pushed: int | None = None
    staleness: int = 2
    threads: int = 1
    clocks: int = 32
    warm: int = 7
    pattern: Pattern = Pattern()
    network: Network = Network()
    cores: int | None = None
    seen: int = 4
    shards: int | None = None
    backups: int = 1
    wakes_all: bool = False
    seed: int = 0

    @property
    def replicas(self) -> int:
        return self.workers * self.threads

    @property
    def bytes(self) -> int:
        return 4 * self.parameters

    @property
    def sparse(self) -> bool:
        """Whether updates are sent with keys."""
        return self.pushed is not None and self.pushed < self.parameters

    @property
    def pushed_bytes(self) -> int:
        """A value of 4 bytes and, unless all are sent, a key of 8 for each entry."""
        return 12 * self.pushed if self.sparse and self.pushed is not None else self.bytes

    def without_costs(self) -> Fit:
        """The same where only training takes time."""
        return replace(self, network=Network(), cores=None, parameters=1, pushed=None)
