"""What the command line does, as plain functions: train, predict, inspect, demo."""

from daskdml.workflow._demo import DemoResult, demo
from daskdml.workflow._errors import RunError
from daskdml.workflow._inspect import Coefficient, Inspection, inspect
from daskdml.workflow._predict import PredictResult, predict
from daskdml.workflow._report import report
from daskdml.workflow._session import check_workers, session
from daskdml.workflow._train import TrainResult, train
from daskdml.workflow._trained import TrainedModel

__all__ = [
    "Coefficient",
    "DemoResult",
    "Inspection",
    "PredictResult",
    "RunError",
    "TrainResult",
    "TrainedModel",
    "check_workers",
    "demo",
    "inspect",
    "predict",
    "report",
    "session",
    "train",
]
