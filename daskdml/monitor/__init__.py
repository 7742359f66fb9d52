"""What a fit tells, and who listens: events, history, progress, stopping rules."""

from daskdml.monitor._callback import Callback, StopTraining
from daskdml.monitor._dispatch import CallbackList
from daskdml.monitor._events import (
    EpochEnd,
    EpochsEnd,
    FitEnd,
    FitInfo,
    Recovery,
    ReplicaRound,
    RoundEnd,
    ServerStart,
)
from daskdml.monitor._history import History
from daskdml.monitor._progress import ProgressBar
from daskdml.monitor._replicas import ReplicaTable
from daskdml.monitor._scaling import ScalingEstimate, estimate_scaling
from daskdml.monitor._stopping import StopDecision, StoppingRule

__all__ = [
    "Callback",
    "CallbackList",
    "EpochEnd",
    "EpochsEnd",
    "FitEnd",
    "FitInfo",
    "History",
    "ProgressBar",
    "Recovery",
    "ReplicaRound",
    "ReplicaTable",
    "RoundEnd",
    "ScalingEstimate",
    "ServerStart",
    "StopDecision",
    "StopTraining",
    "StoppingRule",
    "estimate_scaling",
]
