"""Files in, models out: lazy tables of CSV, Parquet, Zarr and svmlight files; saving and loading of models."""

from daskdml.io._errors import InputError
from daskdml.io._model import load_model, save_model
from daskdml.io._read import read_table
from daskdml.io._table import Table

__all__ = ["InputError", "Table", "load_model", "read_table", "save_model"]
