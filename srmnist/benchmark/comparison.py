"""The engine beside the other implementations: as numbers and as a table."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from srmnist.benchmark import machine, measure
from srmnist.benchmark.variants import (
    CHAINERS,
    ENGINE,
    GPU_CHAINERS,
    NOT_FLOAT32,
    ONNXRUNTIME,
    PLAIN,
    available,
)
from srmnist.benchmark.workers import team
from srmnist.system.device import device_errors, select_device
from srmnist.system.errors import UserError
from srmnist.training.settings import Settings
from srmnist.training.train import train

_FASTEST = "the fastest other"
_PACKAGES = (
    "chainer",
    "numpy",
    "numba",
    "torch",
    "tensorflow-cpu",
    "tensorflow",
    "jax",
    "onnxruntime",
    "openvino",
)
_GPU_PACKAGES = ("chainer", "numpy", "torch")
# What holds each library to AVX2. onnxruntime has no such variable.
AVX2 = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe",
    "OPENBLAS_CORETYPE": "Haswell",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
}
_NO_SWITCH = (ONNXRUNTIME,)


def run(batch: int, rounds: int, avx2: bool = False) -> dict[str, Any]:
    """Measure everything that this computer can run on its CPU.

    Parameters
    ----------
    batch : int
        Images a step.
    rounds : int
        Turns that each variant takes.
    avx2 : bool, default False
        Whether to hold every library to AVX2, the vectors of most laptops. What cannot be held is left out.

    Returns
    -------
    dict
        The machine's card, the versions, and milliseconds (median and quartiles), GFLOP/s and megabytes of
        each variant, and the ratios to plain Chainer and to the fastest other variant in float32; with
        `avx2` all but the first two are under "avx2".

    Raises
    ------
    UserError
        If Numba is missing: there is no engine to measure; if the engine fails; or if the processor has no
        AVX2.
    """
    require_numba()
    found = start()
    if avx2 and "AVX" not in found["machine"].get("vectors", ""):
        raise UserError("--avx2: this processor has no AVX2, or the system does not tell")
    names = [name for name in available() if not (avx2 and name in _NO_SWITCH)]
    with team(names, AVX2 if avx2 else {}, needed=ENGINE) as members:
        members.ask("digits", images=10_000, batch=batch)
        members.ask("check", batch=batch)
        times = members.times(measure.KINDS, batch, rounds)
        memory = members.ask("memory")
        peak = members.ask_one(ENGINE, "peak")
    rows = _rows(times, batch)
    for name, row in rows.items():
        row["peak_memory_mb"] = round(memory[name])
    measured = {
        "batch": batch,
        "matrix_product_gflops": peak,
        "variants": rows,
        "speedup": _speedups(rows, CHAINERS),
    }
    return found | ({"avx2": measured} if avx2 else measured)


def start() -> dict[str, Any]:
    """What every result on the CPU begins with: the machine and the versions."""
    return {"machine": machine.description(), "versions": machine.versions(_PACKAGES)}


def run_gpu(batch: int, rounds: int, gpu: int) -> dict[str, Any]:
    """Measure everything that a GPU can run, in float32 without TF32, on a data set that lies on the device.

    Parameters
    ----------
    batch, rounds : int
        As for `run`.
    gpu : int
        CUDA device number.

    Returns
    -------
    dict
        As that of `run`, without megabytes, but with seconds and error of ten epochs.

    Raises
    ------
    UserError
        If the device is not usable, or if the engine fails.
    """
    select_device(gpu)
    with team(available(gpu), needed=ENGINE) as members:
        members.ask("digits", images=10_000, batch=batch, gpu=gpu)
        rows = _rows(members.times(measure.KINDS, batch, rounds, warmup=3), batch)
    with device_errors(gpu):  # what follows has the device to itself: the workers have ended
        import cupy

        return {
            "machine": machine.card(gpu),
            "versions": machine.versions(_GPU_PACKAGES) | {"cupy": cupy.__version__},
            "batch": batch,
            "matrix_product_gflops": measure.matrix_product_peak(gpu),
            "variants": rows,
            "speedup": _speedups(rows, GPU_CHAINERS),
            "ten_epochs": ten_epochs(gpu, batch),
        }


def ten_epochs(gpu: int, batch: int = 64) -> dict[str, float]:
    """Train on MNIST without writing files: seconds from the first step on, and the last error."""
    result = train(Settings(gpu=gpu, batchsize=batch), terminal=io.StringIO())
    return {"seconds": result.seconds, "images_per_second": result.images_per_second, "mse": result.mse}


def require_numba() -> None:
    """Refuse to compare an engine that is not there."""
    try:
        import numba  # noqa: F401
    except ImportError as error:
        raise UserError(f"there is no engine to time: {error}; pip install numba") from error


def _rows(times: Mapping[measure.Task, list[float]], batch: int) -> dict[str, dict[str, Any]]:
    """Milliseconds of a step and of an evaluation, and the GFLOP/s that they are."""
    rows: dict[str, dict[str, Any]] = {}
    for (name, kind), values in times.items():
        row = rows.setdefault(name, {})
        row |= measure.summary(kind, values)
        row[f"{kind}_gflops"] = measure.rounded(
            measure.flops(batch, train=kind == "step") / row[f"{kind}_ms"] / 1e6
        )
    return rows


def _speedups(rows: Mapping[str, dict[str, Any]], chainers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How many times as fast the engine is as plain Chainer, and as the fastest other variant in float32."""
    others = [name for name in rows if name not in (*chainers, *NOT_FLOAT32)]
    found: dict[str, dict[str, Any]] = {}
    for other, names in ((PLAIN, [PLAIN]), (_FASTEST, others)):
        for kind in measure.KINDS:
            times = {name: rows[name][f"{kind}_ms"] for name in names if f"{kind}_ms" in rows.get(name, {})}
            if times:
                against = min(times, key=times.__getitem__)
                ratio = measure.rounded(times[against] / rows[ENGINE][f"{kind}_ms"])
                found.setdefault(other, {})[kind] = {"against": against, "ratio": ratio}
    return found


def table(result: dict[str, Any]) -> str:
    """The result for a terminal, no wider than 79 columns."""
    compared = result.get("avx2", result)
    held = ", every library held to AVX2" if "avx2" in result else ""
    lines = [
        *machine_lines(result),
        f"batch {compared['batch']}, float32{held}; medians ± half the distance of the quartiles;",
        f"a matrix product by NumPy reaches {compared['matrix_product_gflops']:,.0f} GFLOP/s",
        "",
    ]
    on_cpu = "peak_memory_mb" in compared["variants"][ENGINE]
    lines.append(f"{'':21}{'step':>17}{'evaluate':>17}{'GFLOP/s':>9}" + (f"{'memory':>10}" if on_cpu else ""))
    for name, row in compared["variants"].items():
        times = "".join(_milliseconds(row, kind) for kind in measure.KINDS)
        gflops = row.get("step_gflops", row.get("evaluate_gflops"))
        rest = f"{row['peak_memory_mb']:7.0f} MB" if on_cpu else ""
        lines.append(f"{name:21}{times}{gflops:9,.0f}{rest}")
    lines.append("")
    for kind, noun in (("step", "a step"), ("evaluate", "an evaluation")):
        ratios = [row[kind] for row in compared["speedup"].values() if kind in row]
        lines += [f"{noun} is {row['ratio']:.2f} × as fast as with {row['against']}" for row in ratios]
    if "ten_epochs" in result:
        epochs = result["ten_epochs"]
        lines.append(
            f"ten epochs with evaluation: {epochs['seconds']:.1f} s, validation MSE {epochs['mse']:.6f}"
        )
    return "\n".join(lines)


def machine_lines(result: dict[str, Any]) -> list[str]:
    """The machine and the versions, no wider than 79 columns."""
    card = result["machine"]
    told = [card] if isinstance(card, str) else [f"{name}: {words}" for name, words in card.items()]
    packages = [f"{name} {version}" for name, version in result["versions"].items()]
    return [line for words in (*told, ", ".join(packages)) for line in textwrap.wrap(words, 79)]


def _milliseconds(row: dict[str, Any], kind: str) -> str:
    if f"{kind}_ms" not in row:
        return " " * 17
    value, (low, high) = row[f"{kind}_ms"], row[f"{kind}_quartiles_ms"]
    digits = 3 if value < 10 else 1
    return f"{value:8.{digits}f} ±{(high - low) / 2:4.{min(digits, 2)}f} ms"
