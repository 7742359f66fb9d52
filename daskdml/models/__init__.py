"""What is trained. One Model protocol, no Dask."""

from daskdml.models._layout import Field, Layout
from daskdml.models._linear import LinearModel, problems_of
from daskdml.models._model import Model, Totals

__all__ = ["Field", "Layout", "LinearModel", "Model", "Totals", "problems_of"]
