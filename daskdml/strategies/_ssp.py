"""Strategies whose replicas do not wait for each other: stale synchronous, eager, and asynchronous parallel."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from daskdml.models import Model
from daskdml.server import as_compression, as_optimizer
from daskdml.strategies._parameters import Parameters
from daskdml.strategies._strategy import require_count, spoken_replicas


class Asynchronous(Parameters):
    """Base of the strategies on the parameter server; not for use by itself."""

    name: str
    # Whether the server's news are waited for beside the training, or fetched when they are needed.
    eager = False

    n_replicas: int | None
    staleness: int | None
    clock_rows: int | None
    clock_blocks: float | None
    splits: int
    scale: float | None
    shards: int | None
    backups: int
    optimizer: Any
    compression: Any
    reassign: bool
    speculate: float | None
    trace: bool

    def facts(self) -> list[tuple[str, str]]:
        """What it promises, by name: shown in notebooks."""
        exact = self.staleness == 0
        waiting = f"the fastest replica is at most {self.staleness} clocks ahead of the slowest"
        waiting = "nobody waits for anybody" if self.staleness is None else waiting
        result = "depends on timing; loss and staleness are in history_"
        same = "the same bits for the same data, seed and number of replicas, whoever trains and dies"
        copies = "with a second copy on another worker" if self.backups else "without second copies"
        return [
            ("replicas", spoken_replicas(self.n_replicas)),
            ("waiting", "every replica reads the same parameters at every clock" if exact else waiting),
            ("news", "sent to workers as soon as there are some" if self.eager else "fetched by workers"),
            ("shards", f"{self.shards or 'as many as their size asks for'}, {copies}"),
            ("result", same if exact else result),
        ]

    def check(self, model: Model) -> None:
        """Raise ValueError for a model or parameters this strategy cannot train."""
        self.check_replicas()
        for parameter in ("clock_rows", "shards"):
            if getattr(self, parameter) is not None:
                require_count(self, parameter)
        require_count(self, "splits")
        if self.staleness is not None and (not isinstance(self.staleness, Integral) or self.staleness < 0):
            raise ValueError(f"{self._who}: staleness must be an integer of at least 0, got {self.staleness!r}")
        for parameter in ("clock_blocks", "scale", "speculate"):
            value = getattr(self, parameter)
            if value is not None and not (isinstance(value, Real) and float(value) > 0):
                raise ValueError(f"{self._who}: {parameter} must be a number above 0, got {value!r}")
        if self.clock_rows is not None and self.clock_blocks is not None:
            raise ValueError(f"{self._who}: give clock_rows or clock_blocks, not both")
        if self.backups not in (0, 1):
            raise ValueError(f"{self._who}: backups must be 0 or 1, got {self.backups!r}")
        if as_compression(self.compression) is not None and self.staleness == 0:
            raise ValueError(
                f"{self._who}: compression sends parts of an update later, and with staleness 0 every read has to "
                "contain all of it: use a staleness of 1 or more, or compression=None"
            )
        if self.sends_gradients:
            state = model.init()
            model.slopes(state, model.zero_gradient(state))

    def check_replicas(self) -> None:
        """Raise ValueError for a number of replicas that is none: it is needed before there is a model."""
        if self.n_replicas is not None:
            require_count(self, "n_replicas")

    @property
    def _who(self) -> str:
        return type(self).__name__

    @property
    def sends_gradients(self) -> bool:
        """Whether replicas send gradients to an optimizer of the server, or what their own steps changed."""
        return as_optimizer(self.optimizer) != as_optimizer("add")

    @property
    def ignores_zeros(self) -> bool:
        """Whether an update of 0 is none, so that it need not be sent."""
        return bool(as_optimizer(self.optimizer).ignores_zeros)

    def scale_of(self, n_replicas: int) -> float:
        """What an update is multiplied with."""
        return float(self.scale) if self.scale is not None else 1.0 / n_replicas

    def boost(self, n_replicas: int) -> float:
        """How many times more an own update counts for the replica itself while all others are behind."""
        return max(0.0, 1.0 / self.scale_of(n_replicas) - 1.0)

    @property
    def needs_server(self) -> bool:
        """Whether even one replica needs a server, for a thing that plain SGD does not do."""
        return self.sends_gradients or self.compression is not None or self.trace or self.scale not in (None, 1.0)


class SSP(Asynchronous):
    """Stale synchronous parallel training on a sharded parameter server.

    Each replica trains on its part in clocks and sends what a clock changed to the server. It goes on to its next
    clock while the slowest replica is at most ``staleness`` clocks behind it, reading parameters that contain every
    update at least ``staleness + 1`` clocks old, and often newer ones; its own updates it always sees.

    Parameters
    ----------
    staleness : int, default 3
        How many clocks the fastest replica may be ahead of the slowest. 0 is bulk synchronous: every replica reads the
        same parameters at every clock, and the result depends on seed and number of replicas only.
    n_replicas : int, optional
        How many replicas train; by default one for each thread of the cluster.
    clock_rows : int, optional
        Rows a replica visits in a clock. By default chosen so that a replica spends less than a tenth of its time
        on sending and receiving.
    clock_blocks : float, optional
        The same in blocks of the data, where their rows are not known or do not matter.
    splits : int, default 1
        Parts of a clock that may be trained by different workers: a finer grain for taking work off a slow one,
        for as many times the messages.
    scale : float, optional
        What an update is multiplied with; by default 1 / ``n_replicas``, so that more replicas do not mean larger
        steps: what P replicas learn from the same parameters is averaged, as in parameter averaging.
    shards : int, optional
        Into how many key ranges the parameters are cut; by default by their size, at most one for each worker.
    backups : {1, 0}, default 1
        Copies of each shard on another worker. With 1 the loss of any worker costs no update; with 0, or on a
        single worker, the fit goes back to the last snapshot.
    optimizer : {"add", "momentum", "adagrad", "adam", "ftrl"} or object, default "add"
        "add" sums what the replicas' own steps changed. With another one replicas send the mean gradient of
        a clock instead, and the server makes the step with its own learning rate; the estimator's learning rate
        is then not used.
    compression : {None, "float16", "topk"} or object, default None
        How updates are made smaller; what is left out is added to the next update.
    reassign : bool, default True
        Let a worker with nothing to do take parts of the clocks of slow ones ([2]_), and a replica whose worker is
        lastingly faster than others have more rows (not with staleness 0 or an optimizer).
    speculate : float or None, default 3.0
        Train a part a second time, elsewhere, when it has taken this many times the usual; the first to arrive counts.
    trace : bool, default False
        Record who read and wrote what; the estimator's ``trace_`` then serves :func:`daskdml.server.check_trace`
        and :func:`daskdml.server.replay`.

    References
    ----------
    .. [1] Ho et al., "More effective distributed ML via a stale synchronous parallel parameter server", NIPS 2013.
    .. [2] Harlap et al., "Addressing the straggler problem for iterative convergent parallel ML", SoCC 2016.

    Examples
    --------
    >>> from daskdml import SSP
    >>> SSP(staleness=2, n_replicas=4)
    SSP(n_replicas=4, staleness=2)
    """

    name = "ssp"

    def __init__(
        self,
        staleness: int = 3,
        n_replicas: int | None = None,
        *,
        clock_rows: int | None = None,
        clock_blocks: float | None = None,
        splits: int = 1,
        scale: float | None = None,
        shards: int | None = None,
        backups: int = 1,
        optimizer: Any = "add",
        compression: Any = None,
        reassign: bool = True,
        speculate: float | None = 3.0,
        trace: bool = False,
    ):
        self.staleness = staleness
        self.n_replicas = n_replicas
        self.clock_rows = clock_rows
        self.clock_blocks = clock_blocks
        self.splits = splits
        self.scale = scale
        self.shards = shards
        self.backups = backups
        self.optimizer = optimizer
        self.compression = compression
        self.reassign = reassign
        self.speculate = speculate
        self.trace = trace


class ESSP(SSP):
    """Eager SSP: the server sends parameters onward as soon as the slowest replica has finished a clock.

    The guarantees are those of :class:`SSP`; what is read is usually newer, for more bytes ([1]_). Parameters
    are those of :class:`SSP`.

    References
    ----------
    .. [1] Dai et al., "High-performance distributed ML at scale through parameter server consistency models",
       AAAI 2015.

    Examples
    --------
    >>> from daskdml import ESSP
    >>> ESSP(staleness=2)
    ESSP(staleness=2)
    """

    name = "essp"
    eager = True


class ASP(Asynchronous):
    """Asynchronous parallel training on a sharded parameter server: nobody waits for anybody.

    Each update is applied once and atomically for each shard; how old a read is has no bound, but it is reported in
    ``history_``. Parameters are those of :class:`SSP`, without ``staleness``.

    References
    ----------
    .. [1] Dean et al., "Large scale distributed deep networks", NIPS 2012 (Downpour SGD).

    Examples
    --------
    >>> from daskdml import ASP
    >>> ASP(n_replicas=4)
    ASP(n_replicas=4)
    """

    name = "asp"
    staleness = None

    def __init__(
        self,
        n_replicas: int | None = None,
        *,
        clock_rows: int | None = None,
        clock_blocks: float | None = None,
        splits: int = 1,
        scale: float | None = None,
        shards: int | None = None,
        backups: int = 1,
        optimizer: Any = "add",
        compression: Any = None,
        reassign: bool = True,
        speculate: float | None = 3.0,
        trace: bool = False,
    ):
        self.n_replicas = n_replicas
        self.clock_rows = clock_rows
        self.clock_blocks = clock_blocks
        self.splits = splits
        self.scale = scale
        self.shards = shards
        self.backups = backups
        self.optimizer = optimizer
        self.compression = compression
        self.reassign = reassign
        self.speculate = speculate
        self.trace = trace
