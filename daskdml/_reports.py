"""The results of the commands in words."""

from __future__ import annotations

from typing import Any


def training_report(result: Any) -> str:
    """What came of a training, and how to use the model."""
    lines = [
        f"{result.model_name} model, {result.task}: {result.rows:,} rows, {result.features:,} features, "
        f"{result.epochs} epochs, {result.replicas} replicas ({result.strategy}), {result.seconds:.1f} s",
        f"training loss {_figure(result.train_loss)}; {result.rows_per_second:,.0f} rows/s while training",
    ]
    if result.test:
        lines.append(f"on {result.test_rows:,} rows held out:   model   baseline")
        for name, value in result.test.items():
            base = result.baseline.get(name)
            lines.append(f"  {name:<24}{_figure(value):>10}" + (f"{_figure(base):>11}" if base is not None else ""))
    if result.output:
        lines += [
            f"saved to {result.output}; predict with:",
            f"  daskdml predict {result.output} FILES --output predictions.parquet",
        ]
    if result.report:
        lines.append(f"all about the training is in {result.report}")
    return "\n".join(lines)


def _figure(value: float) -> str:
    """Digits that matter: a price in dollars needs no cents' hundredths."""
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.4g}"


def inspection_report(found: Any) -> str:
    """What is in a model file."""
    lines = [f"{found.estimator}, {found.task}" + (f" of {found.target!r}" if found.target else "")]
    if found.classes is not None:
        shown = ", ".join(map(str, found.classes[:20]))
        lines.append(f"classes ({len(found.classes)}): {shown}" + (", …" if len(found.classes) > 20 else ""))
    lines.append(
        f"columns ({len(found.columns)}): {', '.join(found.columns)}" if found.columns else "columns: svmlight"
    )
    lines.append(f"features: {found.n_features:,}")
    lines.append("parameters: " + ", ".join(f"{k}={v}" for k, v in found.params.items()))
    lines += ["training:", *(f"  {name.replace('_', ' ')}: {_short(value)}" for name, value in found.training.items())]
    lines.append("versions: " + ", ".join(f"{k} {v}" for k, v in found.versions.items()))
    lines.append("largest weights:")
    for one in found.coefficients:
        lines.append(f"  {one.value:>+12.4f}  {one.feature}" + (f"  (for {one.label})" if one.label else ""))
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_short(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_short, value[:20])) + (", …" if len(value) > 20 else "")
    return str(value)


def demo_report(result: Any) -> str:
    """What the demonstration saw, and how to do the same with other data."""
    peak = max(result.peak_memory_mb.values())
    memory = result.workers * result.memory_limit_gb
    return "\n".join(
        [
            "",
            f"{result.rows:,} rows, {result.gigabytes:.2f} GB, were written in {result.generate_seconds:.1f} s "
            f"and trained on in {result.train_seconds:.1f} s,",
            f"{result.training['epochs']} epochs at {result.rows_per_second:,.0f} rows/s, by "
            f"{result.workers} workers with {memory:.1f} GB of memory together;",
            f"the largest used {peak:.0f} MB of its {result.memory_limit_gb * 1e3:.0f} MB; "
            f"{result.restarts} were restarted.",
            f"Accuracy on rows held out {result.accuracy:.4f}; the planted weights themselves reach "
            f"{result.best_accuracy:.4f}, the same answer always {result.baseline_accuracy:.4f}.",
            "",
            "With data of your own:",
            "  daskdml train 'data/*.parquet' --target COLUMN --output model.skops --workers 2 --memory-limit 700MB",
            "  daskdml predict model.skops new.parquet --output predictions.parquet",
        ]
    )
