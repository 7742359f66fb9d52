"""Which rows each replica visits, in which round and order: a function of data and seed alone.

A replica's share is an interval of the (seeded) sequence of blocks, so shares are equal to within a row of a block
although lengths are not known, and a block may be divided between two replicas or more. A round takes the same
fraction of every share. Every row is visited exactly once an epoch.

Rows are permuted within their block, and blocks among each other. That is not enough where blocks differ, as in data
sorted by label or by day: the model forgets one block in the next, and the mean of replicas that each saw one label
predicts none well. So where the data are small enough for every replica to read every block often, each gets an equal
part of every block, cut into many pieces that are visited in mixed order (compare Xu et al. 2022, "CorgiPile", who mix
the tuples of several buffered blocks).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm

import numpy as np

from daskdml.numerics import BatchOrder, row_order, seed_of_words

Order = np.ndarray | BatchOrder
# Blocks of one segment, where blocks come from the scheduler: one is trained on, one arrives.
_WINDOW = 2


@dataclass(frozen=True)
class Piece:
    """A fraction of the rows of a block: from ``start`` to ``stop`` of its order in this epoch."""

    block: int
    start: Fraction = Fraction(0)
    stop: Fraction = Fraction(1)

    @property
    def size(self) -> Fraction:
        """In blocks."""
        return self.stop - self.start


@dataclass(frozen=True)
class Holdout:
    """The rows of each block that are kept from training, for early stopping.

    Either a fraction of each block, drawn by ``seed``, or a ``mask`` given for the one block of data in memory.
    """

    fraction: float = 0.0
    seed: int = 0
    mask: np.ndarray | None = None

    def rows(self, block: int, n_rows: int) -> np.ndarray:
        """A boolean array, True for the rows held out."""
        if self.mask is not None:
            return self.mask
        held = np.zeros(n_rows, dtype=bool)
        order = row_order(n_rows, mixed_seed(self.seed, 0, block))
        held[order[: round(self.fraction * n_rows)]] = True
        return held


@dataclass(frozen=True)
class Work:
    """What one replica does in one round."""

    replica: int
    epoch: int
    pieces: tuple[Piece, ...]
    seed: int
    shuffle: bool
    holdout: Holdout | None = None

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks it needs, in the order of their first use."""
        return tuple(dict.fromkeys(piece.block for piece in self.pieces))

    def order(self, piece: Piece, n_rows: int, batched: bool = False) -> Order:
        """The rows of a piece, in the order in which they are visited."""
        return part_of(self.block_order(piece.block, n_rows, batched), piece)

    def block_order(self, block: int, n_rows: int, batched: bool = False) -> Order:
        """The rows of a block that are trained on, in this epoch's order; ``batched`` says that batches are made."""
        # All replicas that share a block permute it alike, so that their pieces are disjoint and miss no row.
        seed = mixed_seed(self.seed, self.epoch, block) if self.shuffle else None
        order: Order = BatchOrder(n_rows, seed) if batched else row_order(n_rows, seed)
        if self.holdout is not None:
            order = np.asarray(order)
            order = order[~self.holdout.rows(block, n_rows)[order]]
        return order


def part_of(order: Order, piece: Piece) -> Order:
    """A piece's part of the order of its block."""
    if not piece.start and piece.stop == 1:
        return order
    return order[int(piece.start * len(order)) : int(piece.stop * len(order))]


def mixed_seed(*parts: int) -> int:
    """A 32-bit seed from several numbers."""
    if len(parts) <= 4 and max(parts) < 2**32:
        return int(seed_of_words(np.array((*parts, 0, 0, 0)[:4], dtype=np.uint32)))
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def shares(n_blocks: int, n_replicas: int, seed: int, shuffle: bool) -> list[list[Piece]]:
    """Each replica's pieces, the same for every epoch: a cached block stays useful where it is."""
    sequence = row_order(n_blocks, mixed_seed(seed, n_replicas) if shuffle else None)
    whole = [Piece(int(block)) for block in sequence]
    return cut(whole, n_replicas)


def cut(pieces: list[Piece], parts: int) -> list[list[Piece]]:
    """Divide a sequence of pieces into ``parts`` consecutive ones of equal size."""
    if parts == 1:
        return [list(pieces)]
    # In whole numbers of a unit that all pieces are multiples of: fractions take thirty times as long.
    unit = lcm(*{p.start.denominator for p in pieces}, *{p.stop.denominator for p in pieces})
    starts = [p.start.numerator * (unit // p.start.denominator) for p in pieces]
    sizes = [p.stop.numerator * (unit // p.stop.denominator) - s for p, s in zip(pieces, starts, strict=True)]
    total = sum(sizes)
    result: list[list[Piece]] = [[] for _ in range(parts)]
    at = 0
    for piece, start, size in zip(pieces, starts, sizes, strict=True):
        begin = at
        at += size * parts
        for part in range(begin // total, parts):
            low, high = max(begin, total * part), min(at, total * (part + 1))
            if low >= high:
                break
            if low == begin and high == at:
                result[part].append(piece)
            else:
                first = start * parts - begin
                edges = Fraction(first + low, unit * parts), Fraction(first + high, unit * parts)
                result[part].append(Piece(piece.block, *edges))
    return result


def mixed_shares(n_blocks: int, n_replicas: int, pieces: int) -> list[list[Piece]]:
    """An equal part of every block for each replica, cut into several pieces: about ``pieces`` a block in all."""
    each = max(-(-pieces // n_replicas), pieces // 8)
    edges = [Fraction(i, each * n_replicas) for i in range(each * n_replicas + 1)]
    return [
        [
            Piece(block, edges[i], edges[i + 1])
            for block in range(n_blocks)
            for i in range(replica * each, (replica + 1) * each)
        ]
        for replica in range(n_replicas)
    ]


def plan_epoch(
    dealt: list[list[Piece]],
    rounds: int,
    epoch: int,
    seed: int,
    shuffle: bool,
    holdout: Holdout | None = None,
) -> list[list[Work]]:
    """The work of an epoch, by round and replica; each replica visits its pieces in a new order every epoch."""
    by_replica = [
        plan_replica(pieces, replica, rounds, epoch, seed, shuffle, holdout) for replica, pieces in enumerate(dealt)
    ]
    return [list(works) for works in zip(*by_replica, strict=True)]


def plan_replica(
    pieces: list[Piece],
    replica: int,
    rounds: int,
    epoch: int,
    seed: int,
    shuffle: bool,
    holdout: Holdout | None = None,
) -> list[Work]:
    """What one replica does in each round of an epoch."""
    # A single piece, as of data in memory, has one order only: fits of few rows would spend their time on it.
    if len(pieces) > 1:
        sequence = row_order(len(pieces), mixed_seed(seed, epoch, replica, 1) if shuffle else None)
        pieces = [pieces[i] for i in sequence]
    parts = cut(pieces, rounds) if pieces else [[] for _ in range(rounds)]
    return [Work(replica, epoch, tuple(part), seed, shuffle, holdout) for part in parts]


def segments(work: Work) -> Iterator[Work]:
    """A work in windows of a few blocks; one, empty, where it has none; all of it where blocks come back."""
    if len(work.blocks) < len(work.pieces):
        yield work
        return
    for at in range(0, max(1, len(work.pieces)), _WINDOW):
        yield replace(work, pieces=work.pieces[at : at + _WINDOW])
