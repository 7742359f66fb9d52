"""The functions Dask runs for a synchronous strategy; their names are what the dashboard shows."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from daskdml.models import Model
from daskdml.strategies._plan import Work
from daskdml.strategies._strategy import Agreed, Partial, Synchronous
from daskdml.strategies._work import Blocks, Report, evaluate_pieces


class Job:
    """What every task of a fit needs to know; opaque to Dask."""

    def __init__(self, strategy: Synchronous, model: Model):
        self.strategy = strategy
        self.model = model

    def __dask_tokenize__(self) -> int:
        return id(self)


class Assignment:
    """The work of one task with the recipes it needs; opaque, so that Dask takes no key in it for a dependency."""

    def __init__(self, work: Work, blocks: Blocks, active: np.ndarray):
        self.work = work
        self.blocks = blocks
        self.active = active

    def with_inputs(self, inputs: tuple[Any, ...]) -> Blocks:
        """The blocks, their inputs filled in: ``inputs`` come block after block, as the recipes want them."""
        if not inputs:
            return self.blocks
        found, at = {}, 0
        for block in self.work.blocks:
            wanted = len(self.blocks.recipes[block].given)
            found[block] = inputs[at : at + wanted]
            at += wanted
        return replace(self.blocks, inputs=found)


def carry(job: Any) -> Any:
    """What other tasks need, as the result of a task: where it is lost, the scheduler has it made again.

    Scattered data are lost for good with their worker, and sending them to every worker waits for one that dies.
    """
    return job


def work(job: Job, agreed: Agreed, assignment: Assignment, before: Partial | None, *inputs: Any) -> Partial:
    """One replica's part of a round, or a segment of it."""
    blocks = assignment.with_inputs(inputs)
    return job.strategy.work(job.model, agreed, assignment.work, assignment.active, blocks, before)


def combine(job: Job, *partials: Partial) -> Partial:
    """The contributions of several replicas as one, in their order."""
    return reduce(lambda a, b: job.strategy.combine(job.model, a, b), partials)


def agree(job: Job, agreed: Agreed, active: np.ndarray, *partials: Partial) -> Agreed:
    """The end of a round: what is left to combine, and the step."""
    begin = time.perf_counter()
    found = job.strategy.agree(job.model, agreed, combine(job, *partials), active)
    return replace(found, report=replace(found.report, agree_seconds=time.perf_counter() - begin))


def report_of(agreed: Agreed) -> Report:
    """The small part of what was agreed on."""
    return agreed.report


def evaluate(job: Job, agreed: Agreed, assignment: Assignment, *inputs: Any) -> np.ndarray | None:
    """One replica's validation statistics."""
    return evaluate_pieces(job.model, agreed.state, assignment.work, assignment.with_inputs(inputs))
