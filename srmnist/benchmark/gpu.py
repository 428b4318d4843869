"""What a training step and an evaluation cost on a GPU, and ten epochs as a whole.

All variants compute the same network in float32, without TF32, on a data set that lies on the device, from
batches of indices that come from the host. They take turns; a turn's time is taken from an idle device to an
idle device. Medians over the turns are quoted.
"""

from __future__ import annotations

import importlib.metadata
import io
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import chainer
import numpy as np
from chainer import optimizers
from chainer.backends import cuda

from srmnist.benchmark.measure import KINDS, flops
from srmnist.benchmark.variants import ENGINE, PLAIN, TORCHES, torch_model
from srmnist.data import load_mnist
from srmnist.degradation import degrade
from srmnist.engine.gpu import machine
from srmnist.engine.gpu.step import Evaluation, Step
from srmnist.engine.gpu.vectors import Vectors
from srmnist.model import CNNAE
from srmnist.system.device import device_errors, select_device
from srmnist.system.errors import first_line
from srmnist.training.settings import Settings
from srmnist.training.train import train

if TYPE_CHECKING:
    import torch

UNCAPTURED = "engine uncaptured"
_TURN = {"step": 50, "evaluate": 50}  # runs in one turn
_WARMUP = 5  # runs before the first turn: compilation, capture


class Variant(NamedTuple):
    """One implementation: a training step on a batch of indices, and the loss of such a batch, evaluated."""

    step: Callable[[np.ndarray], Any]
    evaluate: Callable[[np.ndarray], Any]


def run(gpu: int, batch: int, rounds: int) -> dict[str, Any]:
    """Measure everything on one GPU.

    Parameters
    ----------
    gpu : int
        CUDA device number.
    batch : int
        Images a step.
    rounds : int
        Turns that each variant takes.

    Returns
    -------
    dict
        What ``--json`` writes: the card, the versions, for each variant milliseconds and GFLOP/s, the
        engine's ratios to the others, and seconds and error of ten epochs by `srmnist.training.train.train`.

    Raises
    ------
    UserError
        If the device is not usable.
    """
    select_device(gpu)
    with device_errors(gpu):
        _, originals = load_mnist()
        made = variants(degrade(originals), originals, gpu, batch)
        times = measure(made, batch, rounds, len(originals))
        peak = matrix_product_peak()
        del made
        epochs = ten_epochs(gpu, batch)
    rows = {
        name: {
            "step_ms": row["step"],
            "evaluate_ms": row["evaluate"],
            "step_gflops": flops(batch, train=True) / row["step"] / 1e6,
            "evaluate_gflops": flops(batch, train=False) / row["evaluate"] / 1e6,
        }
        for name, row in times.items()
    }
    return {
        "machine": card(gpu),
        "versions": _versions(),
        "batch": batch,
        "matrix_product_gflops": peak,
        "variants": rows,
        "speedup": {
            name: {kind: row[f"{kind}_ms"] / rows[ENGINE][f"{kind}_ms"] for kind in KINDS}
            for name, row in rows.items()
            if name != ENGINE
        },
        "ten_epochs": epochs,
    }


def variants(degraded: np.ndarray, originals: np.ndarray, gpu: int, batch: int) -> dict[str, Variant]:
    """Make all variants that this machine can run, each with a model of its own.

    One of PyTorch's that cannot compute a batch here is left out, and stderr says why.
    """
    made = {
        ENGINE: _engine(degraded, originals, captured=True),
        UNCAPTURED: _engine(degraded, originals, captured=False),
        PLAIN: _plain_chainer(degraded, originals),
    }
    try:
        import torch
    except ImportError:
        return made
    for name in TORCHES if torch.cuda.is_available() else ():
        variant = _torch(degraded, originals, name, torch.device("cuda", gpu))
        try:
            for kind in KINDS:
                getattr(variant, kind)(np.arange(batch))
        except Exception as error:  # torch.compile wants Triton and a C compiler, and says so in many ways
            sys.stderr.write(f"{name} is left out: {first_line(error)}\n")
        else:
            made[name] = variant
    return made


def measure(
    made: dict[str, Variant],
    batch: int,
    rounds: int,
    images: int,
    synchronise: Callable[[], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Median milliseconds of a training step and of an evaluation, the variants taking turns.

    `synchronise` waits for the device; by default for CUDA's.
    """
    synchronise = synchronise or cuda.cupy.cuda.runtime.deviceSynchronize
    random = np.random.default_rng(0)
    times: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in KINDS} for name in made}
    for round_ in range(rounds + 1):
        for name, variant in made.items():
            for kind in KINDS:
                runs = _TURN[kind] if round_ else _WARMUP
                batches = [random.integers(0, images, batch) for _ in range(runs)]
                synchronise()
                start = time.perf_counter()
                for indices in batches:
                    getattr(variant, kind)(indices)
                synchronise()
                if round_:
                    times[name][kind].append((time.perf_counter() - start) / runs * 1e3)
    return {
        name: {kind: statistics.median(values) for kind, values in of_name.items()}
        for name, of_name in times.items()
    }


def ten_epochs(gpu: int, batch: int) -> dict[str, float]:
    """Train on MNIST as scripts/train.py does: seconds from the first step on, and the last error."""
    with tempfile.TemporaryDirectory() as directory:
        result = train(Settings(gpu=gpu, batchsize=batch), Path(directory), terminal=io.StringIO())
    return {"seconds": result.seconds, "images_per_second": result.images_per_second, "mse": result.mse}


def matrix_product_peak(size: int = 4096, rounds: int = 20) -> float:
    """GFLOP/s of a large float32 matrix product without TF32: the card's practical peak."""
    cupy = cuda.cupy
    a = cupy.asarray(np.random.default_rng(0).random((size, size), np.float32))
    (a @ a).sum()
    best = 0.0
    for _ in range(3):
        cupy.cuda.runtime.deviceSynchronize()
        start = time.perf_counter()
        for _ in range(rounds):
            a @ a
        cupy.cuda.runtime.deviceSynchronize()
        best = max(best, rounds * 2 * size**3 / (time.perf_counter() - start) / 1e9)
    return best


def card(gpu: int) -> str:
    """The GPU's name, and its driver's CUDA."""
    runtime = cuda.cupy.cuda.runtime
    name = runtime.getDeviceProperties(gpu)["name"].decode()
    major, minor = divmod(runtime.driverGetVersion(), 1000)
    return f"{name}, CUDA {major}.{minor // 10}"


def table(report: dict[str, Any]) -> str:
    """The report for a terminal, no wider than 79 columns."""
    lines = [
        report["machine"],
        ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        f"batch {report['batch']}, float32; a matrix product reaches "
        f"{report['matrix_product_gflops'] / 1e3:.1f} TFLOP/s",
        "",
        f"{'':22}{'step':>11}{'evaluate':>11}{'TFLOP/s':>9}{'share':>7}{'engine':>9}",
    ]
    for name, row in report["variants"].items():
        share = row["step_gflops"] / report["matrix_product_gflops"]
        ratio = report["speedup"].get(name)
        times = f"× {ratio['step']:.2f}" if ratio else ""
        lines.append(
            f"{name:22}{row['step_ms']:8.3f} ms{row['evaluate_ms']:8.3f} ms{row['step_gflops'] / 1e3:9.1f}"
            f"{share:7.0%}{times:>9}"
        )
    epochs = report["ten_epochs"]
    lines += [
        "",
        f"ten epochs with evaluation: {epochs['seconds']:.1f} s, validation MSE {epochs['mse']:.6f}",
    ]
    return "\n".join(lines)


def _engine(degraded: np.ndarray, originals: np.ndarray, captured: bool) -> Variant:
    device = machine.current()
    data = [device.xp.asarray(images) for images in (degraded, originals)]
    vectors = Vectors(device, _optimizer())
    training, evaluation = (kind(vectors, *data, captured) for kind in (Step, Evaluation))

    def step(batch: np.ndarray) -> None:
        training.gradients(batch)
        training.update()

    return Variant(step, evaluation.loss)


def _plain_chainer(degraded: np.ndarray, originals: np.ndarray) -> Variant:
    inputs, targets = (cuda.cupy.asarray(images) for images in (degraded, originals))
    optimizer = _optimizer()

    def step(batch: np.ndarray) -> None:
        index = cuda.cupy.asarray(batch)
        with chainer.using_config("plain", True):
            optimizer.update(optimizer.target, inputs[index], targets[index])

    def evaluate(batch: np.ndarray) -> None:
        index = cuda.cupy.asarray(batch)
        plain, test = chainer.using_config("plain", True), chainer.using_config("train", False)
        with plain, test, chainer.no_backprop_mode():
            optimizer.target(inputs[index], targets[index])

    return Variant(step, evaluate)


def _optimizer() -> optimizers.Adam:
    model = CNNAE()
    model.to_device(f"@cupy:{cuda.cupy.cuda.runtime.getDevice()}")
    optimizer = optimizers.Adam()
    optimizer.setup(model)
    return optimizer


def _torch(degraded: np.ndarray, originals: np.ndarray, name: str, device: torch.device) -> Variant:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if "channels_last" in name else torch.contiguous_format
    model = torch_model().to(device, memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    network = torch.compile(model, mode="reduce-overhead") if "compile" in name else model
    inputs, targets = (torch.from_numpy(images).to(device) for images in (degraded, originals))

    def gathered(data: torch.Tensor, batch: np.ndarray) -> torch.Tensor:
        return data[torch.from_numpy(batch).to(device)].to(memory_format=layout)

    def step(batch: np.ndarray) -> None:
        torch.compiler.cudagraph_mark_step_begin()
        model.train()
        optimizer.zero_grad(set_to_none=True)
        restored = network(gathered(inputs, batch))
        torch.nn.functional.mse_loss(restored, gathered(targets, batch)).backward()
        optimizer.step()

    def evaluate(batch: np.ndarray) -> None:
        torch.compiler.cudagraph_mark_step_begin()
        model.eval()
        with torch.no_grad():
            torch.nn.functional.mse_loss(network(gathered(inputs, batch)), gathered(targets, batch))

    return Variant(step, evaluate)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "cupy": cuda.cupy.__version__}
    for name in ("chainer", "numpy", "torch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
