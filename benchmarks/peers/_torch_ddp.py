"""PyTorch in two processes that share gradients: DistributedDataParallel over gloo."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from benchmarks.peers._torch import GRID, Rows, Trainer, module
from benchmarks.race._problem import Problem
from benchmarks.race._side import Config, Side, Step, going_on

RANKS = 2


def rank_main(pipe: Any, rank: int, place: str) -> None:
    """One of the processes: do what is asked until the pipe is closed."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{place}", rank=rank, world_size=RANKS)
    rows: Any = None
    problem: Any = None
    trainer: Any = None
    try:
        while True:
            what, given = pipe.recv()
            if what == "rows":
                problem, start = given
                rows = Rows(*_share(problem, start, rank), problem.n_classes)
                pipe.send(None)
            elif what == "config":
                wrapped = DistributedDataParallel(module(problem))
                trainer = Trainer(problem, rows, given, wrapped, RANKS, _mean)
                trainer.visits = _least(len(rows))
                pipe.send(None)
            else:
                trainer.train()
                pipe.send(trainer.model() if rank == 0 else None)
    except EOFError:
        torch.distributed.destroy_process_group()


def _share(problem: Problem, start: str, rank: int) -> tuple[Any, np.ndarray]:
    """Half of the rows."""
    if start == "files":
        return problem.read(problem.parts[rank::RANKS])
    half = problem.n_rows // RANKS
    return problem.rows(rank * half, problem.n_rows if rank == RANKS - 1 else half)


def _least(n: int) -> int:
    """The least of a number over the processes: with more steps than another, one would wait for ever."""
    number = torch.tensor(n)
    torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MIN)
    return int(number)


def _mean(loss: torch.Tensor) -> torch.Tensor:
    loss = loss.detach().clone()
    torch.distributed.all_reduce(loss)
    return loss / RANKS


class TorchDDP(Side):
    """Rows in memory are in the memory of the two."""

    name = "PyTorch, DDP, 2 processes"
    package = "torch"

    @classmethod
    def grid(cls, problem: Problem) -> list[Config]:
        return GRID

    def open(self) -> None:
        context = multiprocessing.get_context("spawn")
        place = os.path.join(tempfile.mkdtemp(dir=self.scratch), "meeting")
        self.pipes, self.ranks = [], []
        for rank in range(RANKS):
            here, there = context.Pipe()
            process = context.Process(target=rank_main, args=(there, rank, place), daemon=True)
            process.start()
            there.close()
            self.pipes.append(here)
            self.ranks.append(process)

    def prepare(self) -> None:
        self._ask("rows", (self.problem, self.start))

    def steps(self, config: Config) -> Iterator[Step]:
        self._ask("config", config)
        answers: list[Any] = []

        def train() -> None:
            answers[:] = self._ask("train", None)

        return going_on(train, lambda: answers[0])

    def _ask(self, what: str, given: Any) -> list[Any]:
        for pipe in self.pipes:
            pipe.send((what, given))
        return [pipe.recv() for pipe in self.pipes]

    def close(self) -> None:
        for pipe, process in zip(self.pipes, self.ranks, strict=True):
            pipe.close()
            process.join(10)
