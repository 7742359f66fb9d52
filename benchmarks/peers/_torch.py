"""PyTorch in one process: minibatches by its optimizers, or all rows by its L-BFGS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.race._problem import Problem
from benchmarks.race._side import Config, Side, Step, going_on

GRID: list[Config] = [
    {"optimizer": "Adagrad", "lr": 0.1, "batch": 1024},
    {"optimizer": "Adagrad", "lr": 0.5, "batch": 8192},
    {"optimizer": "Adam", "lr": 0.01, "batch": 1024, "decay": True},
    {"optimizer": "Adam", "lr": 0.05, "batch": 8192, "decay": True},
    {"optimizer": "SGD", "lr": 0.1, "batch": 256, "decay": True},
    {"optimizer": "SGD", "lr": 1.0, "batch": 1024, "decay": True},
    {"optimizer": "SGD", "lr": 0.5, "batch": 1024, "momentum": 0.9, "decay": True},
    {"optimizer": "LBFGS"},
]


class Dense(nn.Module):
    """Scores of dense rows."""

    def __init__(self, n_features: int, n_scores: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_scores, n_features))
        self.bias = nn.Parameter(torch.zeros(n_scores))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return functional.linear(X, self.weight, self.bias)


class Sparse(Dense):
    """Scores of sparse rows: the values' share of the weights at their indices, added up, as embeddings are."""

    def __init__(self, n_features: int, n_scores: int):
        super().__init__(n_scores, n_features)
        self.bias = nn.Parameter(torch.zeros(n_scores))

    def forward(self, rows: tuple[torch.Tensor, ...]) -> torch.Tensor:
        indices, offsets, values = rows
        return self.bias + functional.embedding_bag(
            indices, self.weight, offsets, mode="sum", per_sample_weights=values, include_last_offset=True
        )


class Rows:
    """Rows as tensors, of which batches are taken."""

    def __init__(self, X: Any, y: np.ndarray, n_classes: int):
        self.sparse = hasattr(X, "indptr")
        self.X = X if self.sparse else torch.from_numpy(X)
        self.y = torch.from_numpy(y) if n_classes > 2 else torch.from_numpy(y.astype(np.float32))[:, None]

    def __len__(self) -> int:
        return len(self.y)

    def take(self, order: torch.Tensor | None) -> tuple[Any, torch.Tensor]:
        """Some rows, or all."""
        if not self.sparse:
            return (self.X, self.y) if order is None else (self.X[order], self.y[order])
        X = self.X if order is None else self.X[order.numpy()]
        parts = tuple(torch.from_numpy(np.asarray(a)) for a in (X.indices, X.indptr, X.data))
        return parts, self.y if order is None else self.y[order]


def loss_of(n_classes: int) -> Callable[..., torch.Tensor]:
    return functional.cross_entropy if n_classes > 2 else functional.binary_cross_entropy_with_logits


def module(problem: Problem) -> Dense:
    kind = Sparse if problem.is_sparse else Dense
    return kind(problem.n_features, 1 if problem.n_classes == 2 else problem.n_classes)


class Trainer:
    """Passes over rows. ``scores`` is the module, or what wraps it; ``share`` of all rows are here.

    ``total`` makes the mean of a number over the processes that train together.
    """

    def __init__(
        self, problem: Problem, rows: Rows, config: Config, scores: Any, share: int = 1, total: Any = lambda loss: loss
    ):
        self.rows, self.config, self.scores, self.total = rows, dict(config), scores, total
        self.loss, self.alpha = loss_of(problem.n_classes), problem.alpha
        self.decay, name = self.config.pop("decay", False), self.config.pop("optimizer")
        self.batch = self.config.pop("batch", 0) // share
        plain = getattr(scores, "module", scores)
        self.weight, self.bias = plain.weight, plain.bias
        # The same factor for each process, or shares of n / 2 and n / 2 + 1 rows would not add up to the mean.
        self.per_row = share / problem.n_rows
        if name == "LBFGS":
            self.optimizer: Any = torch.optim.LBFGS(
                [self.weight, self.bias], max_iter=1, max_eval=20, history_size=10, line_search_fn="strong_wolfe",
                tolerance_grad=1e-12, tolerance_change=1e-15,
            )  # fmt: skip
        else:
            groups = [{"params": [self.weight], "weight_decay": self.alpha}, {"params": [self.bias]}]
            self.optimizer = getattr(torch.optim, name)(groups, **self.config)
        self.passes = 0
        self.visits = len(rows)
        self.order = torch.Generator().manual_seed(0)

    def train(self) -> None:
        """One pass."""
        if not self.batch:
            self.optimizer.step(self._everything)
            return
        self.passes += 1
        if self.decay:
            for group in self.optimizer.param_groups:
                group["lr"] = self.config["lr"] / self.passes
        for order in torch.randperm(len(self.rows), generator=self.order)[: self.visits].split(self.batch):
            X, y = self.rows.take(order)
            self.optimizer.zero_grad()
            self.loss(self.scores(X), y).backward()
            self.optimizer.step()

    def _everything(self) -> torch.Tensor:
        """The objective, with its gradient."""
        X, y = self.rows.take(None)
        self.optimizer.zero_grad()
        loss = self.loss(self.scores(X), y, reduction="sum") * self.per_row
        loss.backward()
        with torch.no_grad():
            self.weight.grad += self.alpha * self.weight
            return self.total(loss) + self.alpha / 2 * (self.weight**2).sum()

    def model(self) -> tuple[np.ndarray, np.ndarray]:
        coef = self.weight.detach().numpy()
        # An embedding's weights lie feature by feature.
        return (coef.T if self.rows.sparse else coef).copy(), self.bias.detach().numpy().copy()


class TorchSingle(Side):
    name = "PyTorch, 1 process"
    package = "torch"

    @classmethod
    def grid(cls, problem: Problem) -> list[Config]:
        return GRID

    def steps(self, config: Config) -> Iterator[Step]:
        rows = Rows(self.X, self.y, self.problem.n_classes)
        trainer = Trainer(self.problem, rows, config, module(self.problem))
        return going_on(trainer.train, trainer.model)
