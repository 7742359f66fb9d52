"""The functions Dask runs for a synchronous strategy; their names are what the dashboard shows."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
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
    """The work of one task; opaque, so that Dask takes nothing in it for a dependency."""

    def __init__(self, work: Work, active: np.ndarray):
        self.work = work
        self.active = active

    def with_inputs(self, blocks: Blocks, inputs: tuple[Any, ...]) -> Blocks:
        """The blocks, their inputs filled in: ``inputs`` come block after block, as the recipes want them."""
        if not inputs:
            return blocks
        found, at = {}, 0
        for block in self.work.blocks:
            wanted = len(blocks.recipes[block].given)
            found[block] = inputs[at : at + wanted]
            at += wanted
        return replace(blocks, inputs=found)


def carry(what: Any, *after: Any) -> Any:
    """What other tasks need, as the result of a task: where it is lost, the scheduler has it made again.

    Scattered data are lost for good with their worker, and sending them to every worker waits for one that dies.
    ``after`` is there to be waited for.
    """
    return what


def work(
    job: Job, blocks: Blocks, agreed: Agreed, assignment: Assignment, before: Partial | None, *inputs: Any
) -> Partial:
    """One replica's part of a round, or a segment of it."""
    given = assignment.with_inputs(blocks, inputs)
    return job.strategy.work(job.model, agreed, assignment.work, assignment.active, given, before)


@dataclass(frozen=True, eq=False)
class Brought:
    """What a replica brings to a round at whose end each agrees by itself, with what the round began with."""

    before: Agreed
    partial: Partial


def set_out(job: Job, blocks: Blocks, agreed: Agreed, assignment: Assignment, *inputs: Any) -> Brought:
    """One replica's part of a round, where what was agreed on is given."""
    return Brought(Agreed(agreed.state, agreed.memory), work(job, blocks, agreed, assignment, None, *inputs))


def go_on(job: Job, blocks: Blocks, first: Brought, assignment: Assignment, n_others: int, *given: Any) -> Brought:
    """One replica's part of a round, from what all brought to the one before: ``first`` and so many of ``given``."""
    agreed = agree(job, first.before, assignment.active, first.partial, *(b.partial for b in given[:n_others]))
    return set_out(job, blocks, agreed, assignment, *given[n_others:])


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


def evaluate(job: Job, blocks: Blocks, agreed: Agreed, assignment: Assignment, *inputs: Any) -> np.ndarray | None:
    """One replica's validation statistics."""
    return evaluate_pieces(job.model, agreed.state, assignment.work, assignment.with_inputs(blocks, inputs))
