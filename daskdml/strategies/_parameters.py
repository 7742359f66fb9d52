"""Parameters of a strategy, as scikit-learn's estimators have them, without scikit-learn."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, Self

from daskdml.monitor._html import changed, facts_html


class Parameters(ABC):
    """``get_params`` and ``set_params`` of what ``__init__`` takes, and a repr of what was set.

    Strategies go to the workers with every task. scikit-learn's ``BaseEstimator`` does the same and more, and with it
    each worker would import scikit-learn, SciPy's statistics among it: 0.7 s and 54 MB, on the way to its first row.
    scikit-learn asks for these methods only, not for its own class: ``clone`` and searches work.

    Examples
    --------
    >>> from daskdml import SSP
    >>> strategy = SSP(1).set_params(shards=2)
    >>> strategy
    SSP(shards=2, staleness=1)
    >>> strategy.get_params()["backups"]
    1
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name, in the order of the alphabet.

        Parameters
        ----------
        deep : bool, default True
            With those of parameters that have some themselves, as ``optimizer__name``.
        """
        names = sorted(set(inspect.signature(type(self).__init__).parameters) - {"self"})
        found = {name: getattr(self, name) for name in names}
        if deep:
            for name in names:
                if hasattr(found[name], "get_params") and not isinstance(found[name], type):
                    found |= {f"{name}__{inner}": value for inner, value in found[name].get_params().items()}
        return found

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For a name that is no parameter.
        """
        known = self.get_params(deep=False)
        nested: dict[str, dict[str, Any]] = {}
        for name, value in params.items():
            outer, is_nested, inner = name.partition("__")
            if outer not in known:
                raise ValueError(
                    f"Invalid parameter {outer!r} for estimator {self!r}. Valid parameters are: {sorted(known)!r}."
                )
            if is_nested:
                nested.setdefault(outer, {})[inner] = value
            else:
                setattr(self, name, value)
        for outer, inner_params in nested.items():
            getattr(self, outer).set_params(**inner_params)
        return self

    @abstractmethod
    def facts(self) -> list[tuple[str, str]]:
        """What it promises, by name: shown in notebooks."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in changed(self).items())})"

    def _repr_html_(self) -> str:
        return facts_html(f"what {type(self).__name__} promises", [("strategy", repr(self)), *self.facts()])
