"""Where a long fit keeps how far it has come: payloads of arrays and plain values, written whole or not at all."""

from daskdml.checkpoint._cadence import Cadence
from daskdml.checkpoint._errors import CheckpointError
from daskdml.checkpoint._store import CheckpointStore

__all__ = ["Cadence", "CheckpointError", "CheckpointStore"]
