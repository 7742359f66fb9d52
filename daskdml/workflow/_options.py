"""How a training is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from daskdml.checkpoint import Cadence, CheckpointStore
from daskdml.io import InputError
from daskdml.workflow._report import check_report
from daskdml.workflow._target import TASKS

# Of NumPy's generators, which scikit-learn's random_state is.
_MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class TrainOptions:
    """How :func:`train` trains; see there."""

    target: str | None = None
    task: str | None = None
    model: str | None = None
    strategy: str = "averaging"
    replicas: int | None = None
    staleness: int | None = None
    epochs: int = 10
    test_size: float = 0.2
    seed: int = 0
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)
    progress: bool = False
    checkpoint: str | os.PathLike | None = None
    checkpoint_every: float | str = "60s"
    resume: bool = False
    report: str | os.PathLike | None = None

    def check(self) -> None:
        """Raise :class:`InputError` for a value out of range."""
        if self.task is not None and self.task not in TASKS:
            raise InputError(f"unknown task {self.task!r}; it is {' or '.join(TASKS)}")
        if not 0 <= self.test_size < 1:
            raise InputError(
                f"the test size {self.test_size} is not a fraction; give one from 0 to below 1, such as 0.2"
            )
        if self.epochs < 1:
            raise InputError(f"{self.epochs} epochs are none; give at least 1")
        if self.staleness is not None and self.strategy not in ("ssp", "essp"):
            raise InputError(f"a staleness is for the strategies ssp and essp, not for {self.strategy!r}; leave it out")
        if self.staleness is not None and self.staleness < 0:
            raise InputError(f"the staleness is {self.staleness}; it must be at least 0")
        if self.replicas is not None and self.replicas < 1:
            raise InputError(f"{self.replicas} replicas are none; give at least 1, or leave them out")
        if not 0 <= self.seed <= _MAX_SEED:
            sort = "negative" if self.seed < 0 else "too large"
            raise InputError(f"the seed {self.seed} is {sort}; give a whole number from 0 to {_MAX_SEED}")
        if self.report is not None:
            check_report(self.report)
        if self.resume and self.checkpoint is None:
            raise InputError("--resume needs --checkpoint, the directory that the first training was given")
        try:
            Cadence.of(self.checkpoint_every)
            if self.checkpoint is not None:
                # Before the table is surveyed, which may take long.
                CheckpointStore(self.checkpoint).prepare()
        except (ValueError, OSError) as error:
            raise InputError(str(error)) from None
