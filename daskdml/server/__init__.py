"""The parameter server: shards and their rules, their actors, and what a worker and the driver see of them."""

from daskdml.server._check import check_trace
from daskdml.server._client import Own, Parameters, Reading, ServerLost, Traffic
from daskdml.server._clock import Ticket, VectorClock
from daskdml.server._compression import Float16, TopK, as_compression, flush, withdraw
from daskdml.server._ledger import Ledger, Stop
from daskdml.server._optimizers import OPTIMIZERS, AdaGrad, Adam, Add, FTRLProximal, Momentum, as_optimizer
from daskdml.server._placement import Changes, Group, Lost
from daskdml.server._remote import Directory, Refused, Remote, Unreachable
from daskdml.server._replay import replay
from daskdml.server._shard import Push, Shard, View
from daskdml.server._tables import Partition, Table, Update, default_shards, thinned
from daskdml.server._trace import Read, Trace, TraceError

__all__ = [
    "OPTIMIZERS",
    "AdaGrad",
    "Adam",
    "Add",
    "Changes",
    "Directory",
    "FTRLProximal",
    "Float16",
    "Group",
    "Ledger",
    "Lost",
    "Momentum",
    "Own",
    "Parameters",
    "Partition",
    "Push",
    "Read",
    "Reading",
    "Refused",
    "Remote",
    "ServerLost",
    "Shard",
    "Stop",
    "Table",
    "Ticket",
    "TopK",
    "Trace",
    "Traffic",
    "TraceError",
    "Unreachable",
    "Update",
    "VectorClock",
    "View",
    "as_compression",
    "as_optimizer",
    "check_trace",
    "default_shards",
    "flush",
    "replay",
    "thinned",
    "withdraw",
]
