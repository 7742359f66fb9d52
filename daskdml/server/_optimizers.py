"""What a shard makes of an update: settings as frozen dataclasses, state as arrays beside the parameters.

`Add` takes what was pushed as a difference and adds it. The others take it as a gradient and descend. A sparse update
touches the state of its keys only ("lazy" optimizers): the cost of a push does not grow with the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from daskdml.numerics import kernel

_NO_KEYS = np.empty(0, dtype=np.int64)


@runtime_checkable
class Optimizer(Protocol):
    """How values change by an update; settings only, the state is passed in.

    ``ignores_zeros`` says that an update by 0 changes nothing: it need not be sent.
    """

    ignores_zeros: ClassVar[bool]

    def init(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """The state that belongs to ``values`` before the first step, one entry for each value."""

    def step(
        self, values: np.ndarray, state: dict[str, np.ndarray], keys: np.ndarray | None, update: np.ndarray
    ) -> None:
        """Change ``values[keys]`` and their state in place; keys are unique, None means all."""


def _checked(name: str, value: float, low: float, high: float = np.inf, open_low: bool = False) -> None:
    if not (low < value if open_low else low <= value) or not value < high:
        bounds = f"{'(' if open_low else '['}{low:g}, {high:g})"
        raise ValueError(f"{name}={value} is outside {bounds}")


@dataclass(frozen=True)
class Add:
    """Plain addition: ``w += update``."""

    ignores_zeros: ClassVar[bool] = True

    def init(self, values: np.ndarray) -> dict[str, np.ndarray]:
        return {}

    def step(
        self, values: np.ndarray, state: dict[str, np.ndarray], keys: np.ndarray | None, update: np.ndarray
    ) -> None:
        if keys is None:
            np.add(values, update, out=values)
        else:
            values[keys] += update


@dataclass(frozen=True)
class Momentum:
    """Gradient descent with momentum: ``v = momentum v + g``, ``w -= lr v``.

    With a sparse update, the velocity of untouched keys neither decays nor moves them.

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate, positive.
    momentum : float, default 0.9
        Part of the velocity that is kept, in [0, 1).
    nesterov : bool, default False
        Look ahead: ``w -= lr (g + momentum v)``.

    References
    ----------
    Sutskever et al. (2013), On the importance of initialization and momentum in deep learning.
    """

    ignores_zeros: ClassVar[bool] = False

    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        _checked("lr", self.lr, 0, open_low=True)
        _checked("momentum", self.momentum, 0, 1)

    def init(self, values: np.ndarray) -> dict[str, np.ndarray]:
        return {"velocity": np.zeros_like(values)}

    def step(
        self, values: np.ndarray, state: dict[str, np.ndarray], keys: np.ndarray | None, update: np.ndarray
    ) -> None:
        keys, grad = _as_kernel_input(values, keys, update)
        _momentum(values, state["velocity"], keys, grad, self.lr, self.momentum, self.nesterov)


@dataclass(frozen=True)
class AdaGrad:
    """A learning rate for each key: ``n += g^2``, ``w -= lr g / (sqrt(n) + eps)``.

    Parameters
    ----------
    lr : float, default 0.1
        Learning rate, positive.
    eps : float, default 1e-10
        Keeps the division defined.

    References
    ----------
    Duchi, Hazan and Singer (2011), Adaptive subgradient methods, the diagonal form.
    """

    ignores_zeros: ClassVar[bool] = True

    lr: float = 0.1
    eps: float = 1e-10

    def __post_init__(self) -> None:
        _checked("lr", self.lr, 0, open_low=True)
        _checked("eps", self.eps, 0, open_low=True)

    def init(self, values: np.ndarray) -> dict[str, np.ndarray]:
        return {"sum_sq": np.zeros_like(values)}

    def step(
        self, values: np.ndarray, state: dict[str, np.ndarray], keys: np.ndarray | None, update: np.ndarray
    ) -> None:
        keys, grad = _as_kernel_input(values, keys, update)
        _adagrad(values, state["sum_sq"], keys, grad, self.lr, self.eps)


@dataclass(frozen=True)
class Adam:
    """Adam, each key with its own count of steps, so that rare keys have the right bias correction too.

    Parameters
    ----------
    lr : float, default 0.001
        Learning rate, positive.
    beta1, beta2 : float, default 0.9 and 0.999
        Decay of the first and the second moment, in [0, 1).
    eps : float, default 1e-8
        Keeps the division defined.

    References
    ----------
    Kingma and Ba (2015), Adam: a method for stochastic optimization, Algorithm 1.
    """

    ignores_zeros: ClassVar[bool] = False

    lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _checked("lr", self.lr, 0, open_low=True)
        _checked("beta1", self.beta1, 0, 1)
        _checked("beta2", self.beta2, 0, 1)
        _checked("eps", self.eps, 0, open_low=True)

    def init(self, values: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "first": np.zeros_like(values),
            "second": np.zeros_like(values),
            "steps": np.zeros(len(values), dtype=np.int32),
        }

    def step(
        self, values: np.ndarray, state: dict[str, np.ndarray], keys: np.ndarray | None, update: np.ndarray
    ) -> None:
        keys, grad = _as_kernel_input(values, keys, update)
        moments = state["first"], state["second"], state["steps"]
        _adam(values, *moments, keys, grad, self.lr, self.beta1, self.beta2, self.eps)


@dataclass(frozen=True)
class FTRLProximal:
    """Follow the regularised leader, proximal: sparse models by L1, learning rates by key.

    The values are a function of the state, ``w = -(z - sign(z) l1) / ((beta + sqrt(n)) / alpha + l2)`` and 0 where
    ``|z| <= l1``; the state starts so that it gives the initial values.

    Parameters
    ----------
    alpha : float, default 0.1
        Learning rate, positive.
    beta : float, default 1
        Slows the first steps; not negative, and positive unless ``l2`` is.
    l1, l2 : float, default 0
        Penalties.

    References
    ----------
    McMahan et al. (2013), Ad click prediction: a view from the trenches, Algorithm 1.
    """

    ignores_zeros: ClassVar[bool] = True

    alpha: float = 0.1
    beta: float = 1.0
    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        _checked("alpha", self.alpha, 0, open_low=True)
        for name in ("beta", "l1", "l2"):
            _checked(name, getattr(self, name), 0)
        if not self.beta and not self.l2:
            raise ValueError("beta=0 with l2=0 leaves the first step unbounded; set one of them")

    def init(self, values: np.ndarray) -> dict[str, np.ndarray]:
        z = -values * (self.beta / self.alpha + self.l2) - np.sign(values) * self.l1
        return {"z": z.astype(values.dtype), "n": np.zeros_like(values)}

    def step(
        self, values: np.ndarray, state: dict[str, np.ndarray], keys: np.ndarray | None, update: np.ndarray
    ) -> None:
        keys, grad = _as_kernel_input(values, keys, update)
        _ftrl(values, state["z"], state["n"], keys, grad, self.alpha, self.beta, self.l1, self.l2)


OPTIMIZERS: dict[str, type] = {
    "add": Add,
    "momentum": Momentum,
    "adagrad": AdaGrad,
    "adam": Adam,
    "ftrl": FTRLProximal,
}


def as_optimizer(optimizer: str | Optimizer) -> Any:
    """An optimizer from its name in `OPTIMIZERS`, with default settings, or the object itself.

    Raises
    ------
    ValueError
        For another name.
    TypeError
        For an object of a class that is not in `OPTIMIZERS`: a snapshot could not name it.
    """
    if isinstance(optimizer, str):
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"no optimizer {optimizer!r}; there are {', '.join(map(repr, OPTIMIZERS))}")
        return OPTIMIZERS[optimizer]()
    if type(optimizer) not in OPTIMIZERS.values():
        known = ", ".join(cls.__name__ for cls in OPTIMIZERS.values())
        raise TypeError(f"{optimizer!r} is not an optimizer; use one of {known}, or add its class to OPTIMIZERS")
    return optimizer


def _as_kernel_input(values: np.ndarray, keys: np.ndarray | None, update: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys and gradient in the types the kernels are compiled for; no keys stand for all."""
    grad = np.ascontiguousarray(update, dtype=values.dtype)
    if keys is None:
        return _NO_KEYS, grad
    return np.ascontiguousarray(keys, dtype=np.int64), grad


# One pass over the keys: as NumPy expressions each would walk an 8 MB table some ten times. An update without any
# key does nothing whether it is dense or sparse, so that an empty array can stand for "all keys".
@kernel
def _momentum(w, velocity, keys, grad, lr, momentum, nesterov):
    sparse = len(keys) > 0
    for j in range(len(grad)):
        i = keys[j] if sparse else j
        g = grad[j]
        v = momentum * velocity[i] + g
        velocity[i] = v
        w[i] -= lr * (g + momentum * v if nesterov else v)


@kernel
def _adagrad(w, sum_sq, keys, grad, lr, eps):
    sparse = len(keys) > 0
    for j in range(len(grad)):
        i = keys[j] if sparse else j
        g = grad[j]
        sum_sq[i] += g * g
        w[i] -= lr * g / (np.sqrt(sum_sq[i]) + eps)


@kernel
def _adam(w, first, second, steps, keys, grad, lr, beta1, beta2, eps):
    sparse = len(keys) > 0
    # Most keys of an update have been touched equally often: their powers need not be taken anew.
    last, correction1, correction2 = 0, 1.0, 1.0
    for j in range(len(grad)):
        i = keys[j] if sparse else j
        g = grad[j]
        steps[i] += 1
        if steps[i] != last:
            last = steps[i]
            correction1 = 1.0 - beta1**last
            correction2 = 1.0 - beta2**last
        first[i] = beta1 * first[i] + (1.0 - beta1) * g
        second[i] = beta2 * second[i] + (1.0 - beta2) * g * g
        w[i] -= lr * (first[i] / correction1) / (np.sqrt(second[i] / correction2) + eps)


@kernel
def _ftrl(w, z, n, keys, grad, alpha, beta, l1, l2):
    sparse = len(keys) > 0
    for j in range(len(grad)):
        i = keys[j] if sparse else j
        g = grad[j]
        root = np.sqrt(n[i] + g * g)
        sigma = (root - np.sqrt(n[i])) / alpha
        z[i] += g - sigma * w[i]
        n[i] += g * g
        if abs(z[i]) <= l1:
            w[i] = 0.0
        else:
            w[i] = -(z[i] - np.sign(z[i]) * l1) / ((beta + root) / alpha + l2)
