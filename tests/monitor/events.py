"""Events of a made-up fit, for tests of listeners."""

from daskdml.monitor import EpochEnd, FitInfo, ReplicaRound, RoundEnd


def info(**changed):
    known = {"n_rows": 100, "max_epochs": 4, "rounds_per_epoch": 2}
    return FitInfo(**{"estimator": "SGDClassifier", "strategy": "averaging", "n_replicas": 2, "n_blocks": 5,
                      "n_features": 3} | known | changed)  # fmt: skip


def round_end(epoch=1, number=1, **changed):
    seconds = {"seconds": 0.5, "compute_seconds": 0.6, "load_seconds": 0.3, "wait_seconds": 0.1}
    return RoundEnd(**{"epoch": epoch, "round": number, "loss": 0.7, "objective": 0.8, "rows": 50, "bytes": 1200,
                       "blocks_from_recipe": 3} | seconds | changed)  # fmt: skip


def replica_round(replica=0, number=1, **changed):
    seconds = {"seconds": 0.5, "compute_seconds": 0.3, "load_seconds": 0.2, "wait_seconds": 0.1}
    return ReplicaRound(**{"replica": replica, "round": number, "epoch": 1, "worker": f"tcp://10.0.0.{replica}:1",
                           "begin": number - 1.0, "rows": 25, "bytes": 600} | seconds | changed)  # fmt: skip


def epoch_end(epoch=1, **changed):
    return EpochEnd(**{"epoch": epoch, "loss": 0.7, "objective": 0.8, "rows": 100, "seconds": 1.0} | changed)


def play(listener, epochs=2):
    """A whole fit of two rounds an epoch, up to its last epoch."""
    listener.on_fit_start(info())
    for epoch in range(1, epochs + 1):
        listener.on_round_end(round_end(epoch, 2 * epoch - 1))
        listener.on_round_end(round_end(epoch, 2 * epoch))
        listener.on_epoch_end(epoch_end(epoch, learning_rate=0.1 / epoch))
