"""Losses, penalties, schedules and the compiled kernels: arrays in, arrays out. No Dask."""

from daskdml.numerics._adaptive import train_rows_adaptive
from daskdml.numerics._epochs import Patience, train_epochs
from daskdml.numerics._gradient import (
    Gradient,
    add_gradients,
    apply_gradient,
    gradient_rows,
    penalties,
    scalar_rate,
    zero_gradient,
)
from daskdml.numerics._losses import LOSSES, Loss, loss_and_gradient
from daskdml.numerics._minibatch import gradient_settings, train_batches
from daskdml.numerics._on_device import DeviceBlock, card, why_no_card
from daskdml.numerics._plain import train_rows_plain
from daskdml.numerics._rows import CsrRows, DenseRows, as_rows
from daskdml.numerics._settings import (
    ADAGRAD,
    ADAPTIVE,
    BINARY,
    L2,
    NO_PENALTY,
    NORMALIZED,
    ONE_VERSUS_ALL,
    PA1,
    PA2,
    PENALTIES,
    REGRESSION,
    SCHEDULES,
    SOFTMAX,
    Needs,
    Settings,
    State,
    copy_state,
    init_state,
    is_plain,
    narrowed,
    settle,
)
from daskdml.numerics._sgd import train_rows
from daskdml.numerics._shuffle import BatchOrder, row_order, seed_of_words, shuffle_in_place

__all__ = [
    "ADAGRAD",
    "ADAPTIVE",
    "BINARY",
    "L2",
    "LOSSES",
    "NORMALIZED",
    "NO_PENALTY",
    "ONE_VERSUS_ALL",
    "PA1",
    "PA2",
    "PENALTIES",
    "REGRESSION",
    "SCHEDULES",
    "SOFTMAX",
    "BatchOrder",
    "CsrRows",
    "DenseRows",
    "DeviceBlock",
    "Gradient",
    "Loss",
    "Needs",
    "Patience",
    "Settings",
    "State",
    "add_gradients",
    "apply_gradient",
    "as_rows",
    "card",
    "copy_state",
    "gradient_rows",
    "gradient_settings",
    "init_state",
    "is_plain",
    "narrowed",
    "loss_and_gradient",
    "penalties",
    "row_order",
    "scalar_rate",
    "seed_of_words",
    "settle",
    "shuffle_in_place",
    "train_batches",
    "train_epochs",
    "train_rows",
    "train_rows_adaptive",
    "train_rows_plain",
    "why_no_card",
    "zero_gradient",
]
