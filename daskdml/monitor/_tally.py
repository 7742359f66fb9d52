"""How far a fit has come, in numbers and in words; no screen and no clock of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from daskdml.monitor._events import EpochEnd, FitEnd, FitInfo, RoundEnd

_PREFIXES = ("", "k", "M", "G", "T")


@dataclass
class Tally:
    """What was told of a fit so far.

    Parameters
    ----------
    info : FitInfo
    started : float
        Seconds of any clock, the one that is given to the methods later.

    Examples
    --------
    >>> from daskdml.monitor import FitInfo, RoundEnd
    >>> from daskdml.monitor._tally import Tally
    >>> tally = Tally(FitInfo("SGDClassifier", "bsp", 4, 8, 1000, 5, max_epochs=4, rounds_per_epoch=1), started=0.0)
    >>> tally.add(RoundEnd(1, 1, 0.5, 0.5, rows=1000, seconds=2.0, compute_seconds=8.0, load_seconds=0.0,
    ...                    wait_seconds=0.0, bytes=0))
    >>> tally.standing(now=2.0)
    'epoch 1/4, loss 0.5, 500 rows/s, 0:02 so far, at most 0:06 left'
    """

    info: FitInfo
    started: float
    rows: int = 0
    seconds: float = 0.0
    epoch: int = 0
    epochs: int = 0
    loss: float = float("nan")
    staleness: tuple[float, int] | None = None
    _rows_of_epoch: int | None = field(default=None, repr=False)
    _rows_before: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        self.epochs = self.info.epochs_done
        self._rows_of_epoch = self.info.n_rows

    def add(self, event: RoundEnd) -> None:
        """Take note of a round."""
        self.rows += event.rows
        self.seconds += event.seconds
        self.epoch = event.epoch
        self.loss = event.loss * self.info.loss_scale
        if event.staleness_histogram:
            self.staleness = (event.staleness_mean, event.staleness_max)

    def end_epoch(self, event: EpochEnd) -> None:
        """Take note of an epoch's end: of how many rows it had, where that was not known."""
        self.epochs = event.epoch
        self._rows_of_epoch, self._rows_before = self.rows - self._rows_before, self.rows

    def figures(self) -> dict[str, str]:
        """Epoch, loss and, on a parameter server, staleness: what stands behind a bar."""
        shown = {"epoch": f"{self.epoch}/{self.info.max_epochs}", "loss": f"{self.loss:.4g}"}
        if self.staleness is not None:
            mean, largest = self.staleness
            shown["staleness"] = f"{mean:.1f} (max {largest})"
        return shown

    def speed(self, now: float) -> float:
        """Rows a second since the beginning."""
        return self.rows / max(now - self.started, 1e-9)

    def left(self, now: float) -> float | None:
        """Seconds to the last epoch that there may be, None before it can be told; convergence comes sooner."""
        if not self.rows or self._rows_of_epoch is None:
            return None
        done = self.rows + (self.info.rows_done or self.info.epochs_done * self._rows_of_epoch)
        return max(0.0, self._rows_of_epoch * self.info.max_epochs - done) / self.speed(now)

    # -- in words ---------------------------------------------------------------------------------------

    def beginning(self) -> str:
        """What is about to be trained."""
        info = self.info
        rows = "rows not counted yet" if info.n_rows is None else f"{info.n_rows:,} rows"
        after = f", from epoch {info.epochs_done + 1} on" if info.epochs_done else ""
        return (
            f"{rows} of {counted(info.n_features, 'feature')} in {counted(info.n_blocks, 'block')}, "
            f"{counted(info.n_replicas, 'replica')} ({info.strategy}), "
            f"at most {counted(info.max_epochs, 'epoch')}{after}"
        )

    def standing(self, now: float) -> str:
        """How the fit stands."""
        figures = [f"{name} {value}" for name, value in self.figures().items()]
        left = self.left(now)
        times = [f"{clock(now - self.started)} so far", *([] if left is None else [f"at most {clock(left)} left"])]
        return ", ".join([*figures, f"{short(self.speed(now))} rows/s", *times])

    def ending(self, event: FitEnd) -> str:
        """How the fit ended."""
        how = {"max_iter": "ended", "failed": "failed"}.get(event.reason, event.reason)
        rate = f", {short(self.rows / event.seconds)} rows/s" if event.seconds > 0 and self.rows else ""
        why = f": {event.error}" if event.error else f"; loss {self.loss:.4g}" if self.rows else ""
        return f"{how} after {counted(event.epochs, 'epoch')}, {event.seconds:.3g} s{rate}{why}"

    def of_round(self, event: RoundEnd) -> str:
        """A round in detail; seconds are summed over replicas, but for the first."""
        parts = [
            f"round {event.round} in epoch {event.epoch}/{self.info.max_epochs}: "
            f"loss {event.loss * self.info.loss_scale:.6g}, {event.rows:,} rows in {event.seconds:.3g} s",
            f"computing {event.compute_seconds:.3g} s, loading {event.load_seconds:.3g} s, "
            f"waiting for blocks {event.wait_seconds:.3g} s",
            f"blocks {event.blocks_from_recipe} read, {event.blocks_from_memory} from memory, "
            f"{event.blocks_from_disk} from disk, {short(event.bytes)}B",
        ]
        if event.staleness_histogram or event.sent_bytes:
            parts.append(
                f"waiting for replicas {event.gate_seconds:.3g} s, {short(event.sent_bytes)}B sent, "
                f"{short(event.received_bytes)}B received, staleness {event.staleness_mean:.1f} "
                f"(max {event.staleness_max})"
            )
        for name in ("retries", "reassigned", "recoveries"):
            if getattr(event, name):
                parts.append(f"{name} {getattr(event, name)}")
        return "; ".join(parts)

    def of_epoch(self, event: EpochEnd) -> str:
        """An epoch in detail."""
        scale = self.info.loss_scale
        text = (
            f"epoch {event.epoch}/{self.info.max_epochs}: loss {event.loss * scale:.6g}, objective "
            f"{event.objective * scale:.6g}, {event.rows:,} rows in {event.seconds:.3g} s"
        )
        if event.validation_score is not None:
            text += f", validation score {event.validation_score:.4g}"
        return text if event.learning_rate is None else f"{text}, learning rate {event.learning_rate:.4g}"


def counted(count: int, thing: str) -> str:
    """A number of things: ``1 block``, ``1,024 blocks``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def short(amount: float) -> str:
    """Three digits and a prefix: 1.23M."""
    for prefix in _PREFIXES:
        if abs(amount) < 999.5 or prefix == _PREFIXES[-1]:
            break
        amount /= 1000
    return f"{amount:.3g}{prefix}"


def clock(seconds: float) -> str:
    """Hours (where there are any), minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
