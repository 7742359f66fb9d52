"""A state as flat arrays by name, and back: the form in which replicas exchange it with a parameter server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daskdml.models._model import Model


@dataclass(frozen=True)
class Field:
    """One array of a state: ``largest`` says that replicas agree on its maximum, not on its sum of changes."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    largest: bool = False

    @property
    def size(self) -> int:
        """Entries."""
        return int(np.prod(self.shape))


class Layout:
    """The arrays of a model's state that hold anything, flat and by name.

    Parameters
    ----------
    model : Model

    Examples
    --------
    >>> import numpy as np
    >>> from daskdml.models import LinearModel
    >>> from daskdml.numerics import Settings
    >>> model = LinearModel(Settings(loss=3, mode=1), 1, 4, np.dtype("f4"), np.ones(1), np.ones(1))
    >>> layout = Layout(model)
    >>> [field.name for field in layout.fields]
    ['coef', 'intercept', 'clock', 'eta']
    >>> layout.state(layout.flat(model.init())).coef.shape
    (1, 4)
    """

    def __init__(self, model: Model):
        self._model = model
        self._template = model.settled(model.init())
        self.fields = tuple(
            Field(name, array.shape, array.dtype, name in model.maxima)
            for name, array in self._template._asdict().items()
            if array.size
        )

    @property
    def nbytes(self) -> int:
        """Bytes of a whole state."""
        return sum(f.size * f.dtype.itemsize for f in self.fields)

    def flat(self, state: Any) -> dict[str, np.ndarray]:
        """The arrays of ``state``, views where it is settled already."""
        settled = self._model.settled(state)
        return {f.name: getattr(settled, f.name).reshape(-1) for f in self.fields}

    def state(self, values: dict[str, np.ndarray]) -> Any:
        """The state whose arrays are ``values``, which it takes over."""
        arrays = {f.name: values[f.name].reshape(f.shape) for f in self.fields}
        return self._template._replace(**arrays)

    def changes(self, before: dict[str, np.ndarray], after: Any, scale: float) -> dict[str, np.ndarray]:
        """What ``after`` adds to ``before``, times ``scale``; a maximum is given as it is."""
        found = {}
        for f in self.fields:
            new = getattr(after, f.name).reshape(-1)
            found[f.name] = new if f.largest else _change(before[f.name], new, scale)
        return found


def _change(before: np.ndarray, after: np.ndarray, scale: float) -> np.ndarray:
    change = after - before
    if scale != 1.0:
        change *= change.dtype.type(scale)
    return change
