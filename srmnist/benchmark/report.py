"""A benchmark as numbers, as a table and as a figure."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from matplotlib.figure import Figure

from srmnist.benchmark import measure
from srmnist.benchmark.variants import ENGINE, PLAIN, TORCHES, available, variants


def run(batch: int, rounds: int, growth: bool) -> dict[str, Any]:
    """Measure everything that this machine can run.

    Parameters
    ----------
    batch : int
        Images a step.
    rounds : int
        Turns that each variant takes.
    growth : bool
        Whether to measure also how the cost grows with the batch and the threads, which takes minutes.

    Returns
    -------
    dict
        What ``--json`` writes: the machine, the versions, for each variant milliseconds, GFLOP/s and
        megabytes, the ratios to the fastest PyTorch, and the growth.
    """
    names = available()
    made = variants(names)
    times = measure.measure(made, batch, rounds)
    epochs = measure.epoch_seconds(made, batch)
    peak = measure.matrix_product_peak()
    rows = {}
    for name in names:
        step, evaluate = times[name]["step"], times[name]["evaluate"]
        rows[name] = {
            "step_ms": step,
            "evaluate_ms": evaluate,
            "epoch_s": epochs[name],
            "step_gflops": measure.flops(batch, train=True) / step / 1e6,
            "evaluate_gflops": measure.flops(batch, train=False) / evaluate / 1e6,
            "peak_memory_mb": measure.peak_memory(name),
        }
    batches, threads = [1, 4, 16, 64, 256, 1024], [1, 2]
    compared = [ENGINE, *(name for name in TORCHES[:2] if name in names)]
    return {
        "machine": measure.machine(),
        "versions": _versions(),
        "batch": batch,
        "matrix_product_gflops": peak,
        "variants": rows,
        "speedup": _speedups(rows),
        "growth": measure.growth(compared, batches, threads) if growth else [],
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("chainer", "numpy", "numba", "torch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _speedups(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """How many times as fast the engine is as plain Chainer and as the fastest PyTorch."""
    others = {PLAIN: [PLAIN], "the fastest PyTorch": [name for name in TORCHES if name in rows]}
    return {
        other: {
            kind: min(rows[name][f"{kind}_ms"] for name in names) / rows[ENGINE][f"{kind}_ms"]
            for kind in ("step", "evaluate")
        }
        for other, names in others.items()
        if names
    }


def table(report: dict[str, Any]) -> str:
    """The report for a terminal, no wider than 79 columns."""
    lines = [
        report["machine"],
        ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        f"batch {report['batch']}, float32; a matrix product reaches "
        f"{report['matrix_product_gflops']:.0f} GFLOP/s",
        "",
        f"{'':22}{'step':>9}{'evaluate':>10}{'epoch':>8}{'GFLOP/s':>9}{'share':>7}{'memory':>9}",
    ]
    for name, row in report["variants"].items():
        share = row["step_gflops"] / report["matrix_product_gflops"]
        lines.append(
            f"{name:22}{row['step_ms']:6.1f} ms{row['evaluate_ms']:7.1f} ms{row['epoch_s']:6.0f} s"
            f"{row['step_gflops']:9.0f}{share:7.0%}{row['peak_memory_mb']:6.0f} MB"
        )
    lines.append("")
    for other, ratios in report["speedup"].items():
        lines.append(
            f"{ENGINE} against {other}: step × {ratios['step']:.2f}, evaluation × {ratios['evaluate']:.2f}"
        )
    return "\n".join(lines)


def figure(report: dict[str, Any]) -> Figure:
    """A step's cost by variant, and how it grows with the batch and the threads."""
    drawn = Figure(figsize=(11, 3.4), layout="constrained")
    bars, curves = drawn.subplots(1, 2)
    shown = {name: row["step_ms"] for name, row in report["variants"].items() if name != PLAIN}
    colours = {name: f"C{i}" for i, name in enumerate(shown)}
    bars.barh(list(shown), list(shown.values()), color=list(colours.values()))
    bars.bar_label(bars.containers[0], fmt="%.1f ms", padding=3)
    bars.invert_yaxis()
    bars.margins(x=0.25)
    bars.set_xlabel(f"one training step, batch {report['batch']} [ms]")
    bars.set_title(f"plain Chainer: {report['variants'][PLAIN]['step_ms']:.0f} ms", fontsize="medium")
    lines: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for row in report["growth"]:
        point = (row["batch"], row["step"] / row["batch"])
        lines.setdefault((row["variant"], row["threads"]), []).append(point)
    for (name, threads), points in lines.items():
        label = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
        style = "--" if threads == 1 else "-"
        curves.plot(*zip(*points, strict=True), style, marker=".", color=colours[name], label=label)
    curves.set(xscale="log", yscale="log", xlabel="batch", ylabel="one training step [ms an image]")
    batches = sorted({row["batch"] for row in report["growth"]})
    curves.set_xticks(batches, map(str, batches))
    for axis in (curves.xaxis, curves.yaxis):
        axis.set_minor_formatter("")
    curves.yaxis.set_major_formatter("{x:g}")
    curves.set_yticks([0.2, 0.5, 1, 2, 5])
    if lines:
        curves.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    for axes in (bars, curves):
        axes.spines[["top", "right"]].set_visible(False)
    return drawn
