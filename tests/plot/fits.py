"""Fitted things, as far as pictures and tables look at them."""

import types

import pandas as pd

from daskdml.monitor import History, ReplicaRound
from daskdml.strategies import SSP, Averaging
from tests.monitor.events import epoch_end, info, round_end


class Made(types.SimpleNamespace):
    """What a fit leaves behind."""


def fitted(epochs=3, rounds=2, scores=False, penalty=0.1, served=False, replicas=2):
    """Replica 1 is slow: 0.4 s a round where replica 0 takes 0.1 s and waits for it."""
    listener = History()
    listener.on_fit_start(info())
    for epoch in range(1, epochs + 1):
        for number in range(rounds):
            which = (epoch - 1) * rounds + number + 1
            for replica in range(replicas):
                listener.on_replica_round(replica_round(replica, which, epoch, served))
            loss = 1 / (epoch + number)
            spent = {"compute_seconds": 0.46, "load_seconds": 0.1, "wait_seconds": 0.04}
            more = {"staleness_histogram": (1, 0, 1), "sent_bytes": 2000, "received_bytes": 3000} if served else {}
            listener.on_round_end(round_end(epoch, which, loss=loss, objective=loss + penalty, **spent, **more))
        listener.on_epoch_end(epoch_end(epoch, validation_score=1 - 1 / (epoch + 1) if scores else None))
    return Made(
        history_=listener.to_frame(),
        replicas_=listener.to_replicas(),
        n_replicas_=replicas,
        strategy_=SSP(3) if served else Averaging(),
    )


def replica_round(replica, number, epoch, served):
    slow = replica == 1
    return ReplicaRound(
        replica,
        number,
        epoch,
        f"tcp://10.0.0.{replica}:400{replica}",
        begin=0.5 * (number - 1),
        seconds=0.4 if slow else 0.1,
        compute_seconds=0.38 if slow else 0.08,
        load_seconds=0.05,
        wait_seconds=0.02,
        gate_seconds=0.0 if slow else 0.3,
        communicate_seconds=0.01,
        rows=25,
        bytes=600,
        sent_bytes=1000 if served else 0,
        received_bytes=1500 if served else 0,
        staleness=2 if served and not slow else 0,
    )


def total(table: pd.DataFrame, **which):
    """Seconds of the lines that have these values."""
    for name, value in which.items():
        table = table[table[name] == value]
    return table["seconds"].sum()
