"""What out of core has shown: a table of limits and epochs for each format, verdicts, and a picture."""

from __future__ import annotations

from typing import Any

from benchmarks._measure import median, table
from benchmarks.out_of_core._files import FORMATS

FIRST, LATER, SPARE = 0.8, 0.7, 200e6


def rate(timed: dict[str, float]) -> float:
    return timed["bytes"] / timed["seconds"]


def shares(found: dict[str, Any]) -> dict[str, float]:
    """What is to be shown: epochs beside their limits. An epoch from files beside the reads of the same kind."""
    fit = found["fit"]
    rates = [b / s for b, s in zip(fit["block_bytes"], fit["seconds"], strict=True)]
    decode = median([rate(d) for d in found["decoding"]])
    out = {"first": rates[0] / decode}
    if "once" in found:
        out["once"] = found["once"]["block_bytes"][0] / found["once"]["seconds"][0] / decode
    if found.get("writing"):
        # Each takes the processors: copying to the system's memory for files does, and finding memory for them.
        write = median([rate(w) for w in found["writing"]])
        out["first of both"] = rates[0] * (1 / decode + 1 / write)
    for name, cold in (("warm", False), ("cold", True)):
        reads = [rate(r) for r in reads_back(fit) if r["cold"] is cold]
        epochs = [r for n, r in enumerate(rates[1:], 2) if (n in fit["cold"]) is cold]
        if reads and epochs:
            out[name] = median(epochs) / median(reads)
    # What decoding and training take of two processors, where nothing else does and no row is kept.
    seconds = fit["block_bytes"][0] / decode
    out["possible"] = seconds / (seconds + fit["compute_seconds"][-1] / fit["workers"])
    # While replicas compute nothing can be faster, wherever rows come from.
    out["computing"] = fit["compute_seconds"][-1] / fit["workers"] / fit["seconds"][-1]
    return out


def reads_back(fit: dict[str, Any]) -> list[dict[str, Any]]:
    """The readings of the cache's files that say what an epoch could take.

    Not those of a few files, where nearly all blocks are made anew because that is as fast as a copy.
    """
    return [r for r in fit["reads"] if r["bytes"] >= fit["block_bytes"][r["before_epoch"] - 1] / 2]


def budget(found: dict[str, Any]) -> float:
    """The plan's cache, two blocks, the model, and 200 MB for the process."""
    plan = found["fit"]["plan"]
    return plan["cache_bytes"] + 2 * found["block_bytes"] / plan["blocks"] + plan["model_bytes"] + SPARE


def text(figures: dict[str, Any]) -> str:
    return "\n\n".join(_format(k, f) for k, f in figures["formats"].items())


def _format(kind: str, found: dict[str, Any]) -> str:
    fit, gigabytes = found["fit"], found["block_bytes"] / 1e9
    rows: list[list[Any]] = []
    for name, what in (("naive", "a few lines, nothing kept"), ("decoding", "decoding alone")):
        for one in found[name]:
            rows.append(_line(found, f"{what}, {fit['workers']} processes", one["seconds"], _held(one)))
    for one in found.get("writing", ()):
        what = f"writing files as the cache does, {one['bytes'] / 1e9:.1f} GB, {fit['workers']} processes"
        rows.append([what, f"{one['seconds']:.2f}", f"{rate(one) / 1e9:.2f}", "", "", ""])
    reads = {r["before_epoch"]: r for r in reads_back(fit)}
    decode = median([rate(d) for d in found["decoding"]])
    for epoch, seconds in enumerate(fit["seconds"], 1):
        limit, share = decode, "decoding"
        if epoch in reads:
            one = reads[epoch]
            limit, share = rate(one), "reading back"
            what = f"reading back what the cache has in files, {fit['workers']} processes"
            rows.append([what, f"{one['seconds']:.2f}", f"{limit / 1e9:.2f}", "", _held(one), ""])
        mine = fit["block_bytes"][epoch - 1] / seconds
        cold = ", page cache emptied" if epoch in fit["cold"] else ""
        rows.append(
            _line(found, f"epoch {epoch}{cold}", seconds, _sources(fit["sources"][epoch - 1]), mine / limit, share)
        )
    if "once" in found:
        once = found["once"]
        what = "the epoch of a fit that has one, and keeps nothing"
        rows.append(
            _line(found, what, once["seconds"][0], _sources(once["sources"][0]), shares(found)["once"], "decoding")
        )
    for epoch, seconds in enumerate(found["alone"]["seconds"], 1):
        ratio = seconds / fit["seconds"][epoch - 1]
        line = _line(found, f"epoch {epoch} on one worker", seconds, _sources(found["alone"]["sources"][epoch - 1]))
        rows.append([*line[:-1], f"two are {ratio:.2f} times as fast"])
    headings = ["", "seconds", "GB of float32 rows/s", "M rows/s", "from", "of the limit"]
    head = (
        f"## {FORMATS[kind]}\n\n{found['rows']:,} x {found['features']} float32, {gigabytes:.1f} GB in memory, "
        f"{found['file_bytes'] / 1e9:.1f} GB of files, on {fit['workers']} workers of {fit['limit'] / 1e9:.2g} GB."
    )
    return f"{head}\n\n{table(headings, rows)}\n\n{_memory(found)}\n\n{_verdicts(found)}"


def _line(found: dict[str, Any], what: str, seconds: float, source: str, share: float = 0, of: str = "") -> list[Any]:
    gigabytes, rows = found["block_bytes"] / seconds / 1e9, found["rows"] / seconds / 1e6
    return [what, f"{seconds:.2f}", f"{gigabytes:.2f}", f"{rows:.2f}", source, f"{share:.0%} of {of}" if of else ""]


def _held(one: dict[str, float]) -> str:
    return f"files, {one['resident']:.0%} of them in the page cache"


def _sources(counts: list[int]) -> str:
    names = ("recipes", "in memory", "in files")
    return ", ".join(f"{n} {name}" for n, name in zip(counts, names, strict=True) if n) + " (blocks)"


def _memory(found: dict[str, Any]) -> str:
    fit, plan = found["fit"], found["fit"]["plan"]
    peaks = ", ".join(f"{b / 1e6:.0f} MB" for b in fit["peak_bytes"])
    moved = {k: n / 1e9 for k, n in fit["moved"].items()}
    return (
        f"Peak memory of the workers {peaks}; the limit is {fit['limit'] / 1e6:.0f} MB, and the plan's cache of "
        f"{plan['cache_bytes'] / 1e6:.0f} MB, two blocks of {found['block_bytes'] / plan['blocks'] / 1e6:.0f} MB, "
        f"the model and 200 MB make {budget(found) / 1e6:.0f} MB; a process was {plan['process_bytes'] / 1e6:.0f} MB "
        f"before the fit. The workers read {moved['read_chars']:.1f} GB and "
        f"wrote {moved['write_chars']:.1f} GB, of which {moved['read_bytes']:.1f} and {moved['write_bytes']:.1f} GB "
        f"from and to the disk; {fit['restarts']} restarts, {fit['pauses']} pauses. "
        f"Training accuracy {fit['accuracy']:.4f}, that of the planted weights {found['planted_accuracy']:.4f}."
    )


def _verdicts(found: dict[str, Any]) -> str:
    fit, seen = found["fit"], shares(found)
    lines = [f"first epoch at {seen['first']:.0%} of decoding; wanted {FIRST:.0%}"]
    if "first of both" in seen:
        lines[0] += f"; at {seen['first of both']:.0%} of decoding and writing, one after the other"
    lines[0] += f"; decoding and training on the same processors, and nothing else, would be at {seen['possible']:.0%}"
    if "once" in seen:
        lines.append(f"the epoch of a fit that has one at {seen['once']:.0%} of decoding")
    lines += [
        f"later epochs, page cache {state}, at {seen[key]:.0%} of reading back; wanted {LATER:.0%}"
        for key, state in (("warm", "as it is"), ("cold", "emptied"))
        if key in seen
    ]
    busy = [c / fit["workers"] / s for c, s in zip(fit["compute_seconds"], fit["seconds"], strict=True)]
    lines.append("of the epochs' time, replicas were computing for " + ", ".join(f"{b:.0%}" for b in busy))
    return "\n".join(f"* {line}" for line in lines)


def picture(figures: dict[str, Any]) -> Any:
    """For each format a panel of rates, the limits as lines, and one of peak memory; None where there is no format."""
    from benchmarks._plots import BLUE, GREEN, GREY, ORANGE, SKY, VERMILION, finish, panels

    formats = figures.get("formats")
    if not formats:
        return None
    figure, axes = panels(len(formats) + 1, 3.6, 3.4)
    for ax, (kind, found) in zip(axes, formats.items(), strict=False):
        fit = found["fit"]
        rates = [b / s / 1e9 for b, s in zip(fit["block_bytes"], fit["seconds"], strict=True)]
        epochs = range(1, len(rates) + 1)
        ax.bar(epochs, rates, color=[BLUE, *[SKY] * (len(rates) - 1)], width=0.6)
        decode = median([rate(d) for d in found["decoding"]]) / 1e9
        ax.hlines(decode, 0.5, 1.5, color=VERMILION, label="decoding alone")
        for name, cold, colour in (("reading back", False, GREEN), ("the same, page cache emptied", True, ORANGE)):
            marks = [(r["before_epoch"], rate(r) / 1e9) for r in reads_back(fit) if r["cold"] is cold]
            if marks:
                ax.plot(*zip(*marks, strict=True), "_", color=colour, markersize=22, markeredgewidth=2, label=name)
        ax.set(title=FORMATS[kind].replace("zarr's ", ""), xlabel="epoch", yscale="log")
        ax.set_xticks(list(epochs))
        ax.set_ylim(0.1, 50)
        finish(ax)
        ax.get_legend().remove()
    axes[0].set_ylabel("GB of float32 rows/s")
    memory = axes[-1]
    for row, (kind, found) in enumerate(formats.items()):
        memory.barh(row, max(found["fit"]["peak_bytes"]) / 1e6, color=BLUE, height=0.5)
        for value, colour in ((found["fit"]["limit"], VERMILION), (budget(found), GREY)):
            name = "limit" if colour == VERMILION else "cache + 2 blocks + model + 200 MB"
            memory.plot([value / 1e6] * 2, [row - 0.4, row + 0.4], color=colour, label=None if row else name)
        memory.text(20, row, kind, color="white", va="center", fontsize=8)
    memory.set(title="peak memory of a worker", xlabel="MB")
    memory.set_yticks([])
    memory.set_ylim(-0.6, len(formats) + 0.3)
    finish(memory)
    memory.get_legend().remove()
    shown = {}
    for ax in (axes[0], memory):
        handles, labels = ax.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=len(shown), fontsize=8, frameon=False)
    return figure
