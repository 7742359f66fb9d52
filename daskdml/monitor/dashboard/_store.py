"""The last fits of a cluster, told apart, in bounded memory. Nothing of Dask or bokeh here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from daskdml.monitor.dashboard._fit import Fit
from daskdml.monitor.dashboard._messages import FORMAT, unpacked


class FitStore:
    """Keeps what the page shows: of the last ``kept`` fits, of whatever clients.

    Where there are more, the oldest that is over makes room, or else the oldest.

    Parameters
    ----------
    kept : int, default 10

    Examples
    --------
    >>> from daskdml.monitor.dashboard import FitStore
    >>> store = FitStore()
    >>> store.handle({"format": 1, "fit": "a1", "client": "c", "facts": {"estimator": "SGDClassifier"}}, now=0.0)
    >>> store.find("a1").facts["estimator"], store.find().state
    ('SGDClassifier', 'running')
    """

    def __init__(self, kept: int = 10) -> None:
        if kept < 1:
            raise ValueError(f"kept must be at least 1 fit, got {kept}")
        self.kept = kept
        self._fits: OrderedDict[str, Fit] = OrderedDict()
        # By the caller's clock, when each fit began.
        self._began: dict[str, float] = {}

    @property
    def fits(self) -> list[Fit]:
        """The fits, the one that began last at the end."""
        return list(self._fits.values())

    def find(self, id: str | None = None) -> Fit | None:
        """A fit by its id; without one, the newest that runs, or else the newest. None where there is none."""
        if id is not None and id in self._fits:
            return self._fits[id]
        running = [fit for fit in self._fits.values() if fit.running]
        found = running or self.fits
        return found[-1] if found else None

    def handle(self, message: Mapping[str, Any], now: float, threads: int = 0) -> None:
        """Take a message of a fit.

        Parameters
        ----------
        message : dict
            ``format``, ``fit``, ``client`` and ``facts``; of the rest what there is: ``at`` (seconds since the fit
            began), ``totals``, ``events``, ``dropped``, and with the last message ``end`` and ``error``.
        now : float
            Seconds, by any clock that is the same in each call.
        threads : int, default 0
            Of the cluster's workers; 0 where unknown.

        Raises
        ------
        ValueError
            For a message in another format.
        """
        if message.get("format") != FORMAT:
            raise ValueError(f"this scheduler takes events in format {FORMAT}, got {message.get('format')!r}")
        fit = self._fits.get(message["fit"]) or self._begin(message)
        fit.threads = threads or fit.threads
        fit.dropped = int(message.get("dropped", 0))
        fit.totals.update(message.get("totals", {}))
        at = float(message.get("at", fit.seconds))
        self._began[fit.id] = now - at
        for line in message.get("events", ()):
            fit.add(*unpacked(line))
        fit.seconds = max(fit.seconds, at)
        fit.version += 1
        if message.get("end") is not None:
            fit.end(message["end"], message.get("error"))

    def on_worker(self, address: str, joined: bool, now: float) -> None:
        """A worker came, or is gone: fits that run may want to know."""
        for fit in self._fits.values():
            if fit.running:
                kind = "worker joined" if joined else "worker left"
                fit.mark(now - self._began[fit.id], kind, address)
                fit.on_worker(address, joined)

    def on_client_gone(self, client: str) -> None:
        """Nothing more will be heard of a client's fits."""
        for fit in self._fits.values():
            if fit.client == client and fit.running:
                fit.end("not heard of any more", "its client is gone")

    def _begin(self, message: Mapping[str, Any]) -> Fit:
        while len(self._fits) >= self.kept:
            over = [id for id, fit in self._fits.items() if not fit.running]
            oldest = (over or list(self._fits))[0]
            del self._fits[oldest], self._began[oldest]
        taken = {fit.slot for fit in self._fits.values()}
        fit = Fit(message["fit"], message["client"], message["facts"])
        fit.slot = min(set(range(self.kept)) - taken)
        self._fits[fit.id] = fit
        return fit
