"""The engine beside the other implementations: as numbers, as a table and as a figure."""

from __future__ import annotations

import importlib.metadata
import io
import platform
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from srmnist.benchmark import measure
from srmnist.benchmark.variants import CHANNELS_LAST, EAGER, ENGINE, GPU_TORCHES, PLAIN, available, variants
from srmnist.system.device import device_errors, select_device
from srmnist.system.errors import UserError
from srmnist.training.settings import Settings
from srmnist.training.train import train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FASTEST = "the fastest PyTorch"


def run(batch: int, rounds: int, gpu: int = -1, growth: bool = False) -> dict[str, Any]:
    """Measure everything that this computer can run.

    On a GPU all variants compute in float32 without TF32, on a data set that lies on the device.

    Parameters
    ----------
    batch : int
        Images a step.
    rounds : int
        Turns that each variant takes.
    gpu : int, default -1
        CUDA device number; negative is the CPU.
    growth : bool, default False
        Whether to measure also how the cost grows with the batch and the CPU's threads, which takes minutes.

    Returns
    -------
    dict
        What ``--json`` writes: the processor or card under "machine", the versions, milliseconds and GFLOP/s
        of each variant, and the ratios to plain Chainer and to the fastest PyTorch; of the CPU also seconds
        an epoch, megabytes and the growth; of a GPU seconds and error of ten epochs.

    Raises
    ------
    UserError
        If the device is not usable, or Numba is missing and the CPU's engine is to be measured.
    """
    if gpu < 0:
        _require_numba()
    select_device(gpu)
    with device_errors(gpu):
        made = variants(available(gpu), gpu, batch)
        runs = measure.GPU_RUNS if gpu >= 0 else 1
        times = measure.measure(made, batch, rounds, runs=runs, synchronise=measure.synchroniser(gpu))
        rows = {name: _row(row, batch) for name, row in times.items()}
        result = {
            "machine": measure.card(gpu) if gpu >= 0 else measure.processor(),
            "versions": _versions(["chainer", "numpy", "torch", *(() if gpu >= 0 else ("numba",))]),
            "batch": batch,
            "matrix_product_gflops": measure.matrix_product_peak(gpu),
            "variants": rows,
            "speedup": _speedups(rows),
        }
        if gpu >= 0:
            import cupy

            result["versions"]["cupy"] = cupy.__version__
            return result | {"ten_epochs": ten_epochs(gpu, batch)}
    for name, seconds in measure.epoch_seconds(made, batch).items():
        rows[name] |= {"epoch_s": seconds, "peak_memory_mb": measure.peak_memory(name)}
    batches, compared = (
        [1, 4, 16, 64, 256, 1024],
        [name for name in (ENGINE, EAGER, CHANNELS_LAST) if name in made],
    )
    return result | {"growth": measure.growth(compared, batches, measure.thread_counts()) if growth else []}


def ten_epochs(gpu: int, batch: int = 64) -> dict[str, float]:
    """Train on MNIST without writing files: seconds from the first step on, and the last error."""
    result = train(Settings(gpu=gpu, batchsize=batch), terminal=io.StringIO())
    return {"seconds": result.seconds, "images_per_second": result.images_per_second, "mse": result.mse}


def _require_numba() -> None:
    try:
        import numba  # noqa: F401
    except ImportError as error:
        raise UserError(f"there is no engine to time: {error}; pip install numba") from error


def _row(times: dict[str, float], batch: int) -> dict[str, float]:
    """Milliseconds of a step and of an evaluation, and the GFLOP/s that they are."""
    row = {f"{kind}_ms": times[kind] for kind in measure.KINDS}
    for kind in measure.KINDS:
        row[f"{kind}_gflops"] = measure.flops(batch, train=kind == "step") / times[kind] / 1e6
    return row


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _speedups(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """How many times as fast the engine is as plain Chainer and as the fastest PyTorch."""
    others = {PLAIN: [PLAIN], _FASTEST: [name for name in GPU_TORCHES if name in rows]}
    return {
        other: {
            kind: min(rows[name][f"{kind}_ms"] for name in names) / rows[ENGINE][f"{kind}_ms"]
            for kind in measure.KINDS
        }
        for other, names in others.items()
        if names
    }


def table(result: dict[str, Any]) -> str:
    """The result for a terminal, no wider than 79 columns."""
    on_cpu = "growth" in result
    lines = [
        result["machine"],
        ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        f"batch {result['batch']}, float32; a matrix product reaches "
        f"{result['matrix_product_gflops']:,.0f} GFLOP/s",
        "",
        f"{'':22}{'step':>11}{'evaluate':>11}{'GFLOP/s':>9}{'of peak':>8}"
        + (f"{'epoch':>7}{'memory':>9}" if on_cpu else ""),
    ]
    for name, row in result["variants"].items():
        part = row["step_gflops"] / result["matrix_product_gflops"]
        times = "".join(f"{_milliseconds(row[f'{kind}_ms'])} ms" for kind in measure.KINDS)
        rest = f"{row['epoch_s']:5.0f} s{row['peak_memory_mb']:6.0f} MB" if on_cpu else ""
        lines.append(f"{name:22}{times}{row['step_gflops']:9,.0f}{part:8.0%}{rest}")
    lines.append("")
    for other, ratios in result["speedup"].items():
        lines.append(
            f"{ENGINE} against {other}: step × {ratios['step']:.2f}, evaluation × {ratios['evaluate']:.2f}"
        )
    if not on_cpu:
        epochs = result["ten_epochs"]
        lines.append(
            f"ten epochs with evaluation: {epochs['seconds']:.1f} s, validation MSE {epochs['mse']:.6f}"
        )
    return "\n".join(lines)


def _milliseconds(value: float) -> str:
    return f"{value:8.3f}" if value < 10 else f"{value:8.1f}"


def figure(result: dict[str, Any]) -> Figure:
    """A step's cost by variant, and how it grows with the batch and the threads."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 3.4), layout="constrained")
    bars, curves = drawn.subplots(1, 2)
    shown = {name: row["step_ms"] for name, row in result["variants"].items() if name != PLAIN}
    colours = {name: f"C{i}" for i, name in enumerate(shown)}
    bars.barh(list(shown), list(shown.values()), color=list(colours.values()))
    bars.bar_label(bars.containers[0], fmt="%.1f ms", padding=3)
    bars.invert_yaxis()
    bars.margins(x=0.25)
    bars.set_xlabel(f"one training step, batch {result['batch']} [ms]")
    bars.set_title(f"plain Chainer: {result['variants'][PLAIN]['step_ms']:.0f} ms", fontsize="medium")
    lines: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for row in result["growth"]:
        point = (row["batch"], row["step"] / row["batch"])
        lines.setdefault((row["variant"], row["threads"]), []).append(point)
    for (name, threads), points in lines.items():
        label = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
        style = "--" if threads == 1 else "-"
        curves.plot(*zip(*points, strict=True), style, marker=".", color=colours[name], label=label)
    curves.set(xscale="log", yscale="log", xlabel="batch", ylabel="one training step [ms an image]")
    batches = sorted({row["batch"] for row in result["growth"]})
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
