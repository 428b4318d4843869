"""What a training step, an evaluation and an epoch cost.

All variants compute the same network on the same batch with the same optimiser. They take turns, round by
round, so that other work on the computer disturbs them alike; medians are quoted.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import chainer
import numpy as np
from chainer import iterators, training
from chainer.backends import cuda

from srmnist.benchmark.variants import (
    CHAINERS,
    PLAIN,
    Variant,
    make_chainer_optimizer,
    make_variant,
    variants,
)
from srmnist.data import load_mnist
from srmnist.degradation import degrade

_SIDE = 28
_IMAGES = 60_000
# A turn is a pause, in which the threads of the variant before stop spinning, one run that is not counted,
# and a few measurements.
_PAUSE, _TURN = 0.05, 4
GPU_RUNS = 50  # in one measurement on a GPU, which works on while the host is ahead
KINDS = ("step", "evaluate")


def flops(batch: int, train: bool) -> float:
    """Floating-point operations that the convolutions take by their definition, an addition being one.

    Backward costs forward twice, less the first layer's input gradient, which nobody needs.
    """
    layers = [16, 16 * 32, 32 * 64, 64]
    forward = 2 * 9 * sum(layers) * _SIDE**2 * batch
    return 3 * forward - 2 * 9 * layers[0] * _SIDE**2 * batch if train else forward


def measure(
    made: dict[str, Variant],
    batch: int,
    rounds: int,
    warmup: int = 3,
    kinds: tuple[str, ...] = KINDS,
    runs: int = 1,
    synchronise: Callable[[], object] = lambda: None,
) -> dict[str, dict[str, float]]:
    """Median milliseconds of a training step and of an evaluation, the variants taking turns.

    Parameters
    ----------
    made : dict of str to Variant
    batch : int
        Images a step.
    rounds, warmup : int
        Turns that each variant takes: that count, and before these, that do not.
    kinds : tuple of str
        Of `KINDS`.
    runs : int, default 1
        Runs in one measurement, whose mean it is.
    synchronise : function, optional
        Waits for the device: each measurement is from an idle device to an idle device.
    """
    random = np.random.default_rng(0)
    times: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in kinds} for name in made}
    for round_ in range(warmup + rounds):
        indices = random.choice(10_000, batch, replace=batch > 10_000)
        for name, variant in made.items():
            for kind in kinds:
                run = getattr(variant, kind)
                time.sleep(_PAUSE)
                run(indices)
                for _ in range(_TURN):
                    synchronise()
                    start = time.perf_counter()
                    for _ in range(runs):
                        run(indices)
                    synchronise()
                    if round_ >= warmup:
                        times[name][kind].append((time.perf_counter() - start) / runs * 1e3)
    return {
        name: {kind: statistics.median(values) for kind, values in of_name.items()}
        for name, of_name in times.items()
    }


def epoch_seconds(made: dict[str, Variant], batch: int, part: float = 0.05) -> dict[str, float]:
    """Seconds of one epoch of 60,000 images on the CPU, from a part of it.

    Chainer's variants go through their iterator and updater, as in training; PyTorch's index tensors, which
    is the quickest way to feed it.
    """
    steps = max(1, round(_IMAGES / batch * part))
    random = np.random.default_rng(0)
    feed = [random.choice(10_000, batch) for _ in range(steps)]
    _, originals = load_mnist()
    degraded = degrade(originals)
    seconds = {}
    for name, variant in made.items():
        if name in CHAINERS:
            updater = _updater(name, degraded, originals, batch)
            steps_of_epoch = [updater.update] * steps
        else:
            steps_of_epoch = [partial(variant.step, indices) for indices in feed]
        with chainer.using_config("plain", name == PLAIN):
            steps_of_epoch[0]()
            start = time.perf_counter()
            for step in steps_of_epoch:
                step()
        seconds[name] = (time.perf_counter() - start) / steps * _IMAGES / batch
    return seconds


def _updater(
    name: str, degraded: np.ndarray, originals: np.ndarray, batch: int
) -> training.updaters.StandardUpdater:
    iterator = iterators.SerialIterator(chainer.datasets.TupleDataset(degraded, originals), batch)
    return training.updaters.StandardUpdater(iterator, make_chainer_optimizer(name))


def growth(names: list[str], batches: list[int], counts: list[int]) -> list[dict[str, Any]]:
    """A step's milliseconds against the batch's size and the number of threads."""
    rows = []
    made = variants(names)
    for count in counts:
        set_threads(count)
        for batch in batches:
            rounds = max(1, 256 // max(batch, 64))  # a large batch is an average in itself
            for name, times in measure(made, batch, rounds, warmup=1, kinds=("step",)).items():
                rows.append({"variant": name, "threads": count, "batch": batch, "step": times["step"]})
    set_threads(max(counts))
    return rows


def thread_counts() -> list[int]:
    """One thread, and twice as many each time, up to as many as the engine takes by itself."""
    from srmnist.engine.cpu import threads

    most = threads.thread_count()
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})


def set_threads(count: int) -> None:
    """Let the engine, and PyTorch where it is loaded, use so many threads."""
    from srmnist.engine.cpu import threads

    threads.set_thread_count(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def matrix_product_peak(gpu: int = -1, rounds: int = 7) -> float:
    """GFLOP/s of the best large float32 matrix product at hand, without TF32: the practical peak."""
    size, runs, synchronise = (4096, 20, synchroniser(gpu)) if gpu >= 0 else (2048, 1, lambda: None)
    a = np.random.default_rng(0).random((size, size), np.float32)
    factors: list[Any] = [cuda.cupy.asarray(a) if gpu >= 0 else a]
    if gpu < 0 and "torch" in sys.modules:
        factors.append(sys.modules["torch"].from_numpy(a))
    best = 0.0
    for factor in factors:
        for _ in range(rounds):
            synchronise()
            start = time.perf_counter()
            for _ in range(runs):
                factor @ factor
            synchronise()
            best = max(best, runs * 2 * size**3 / (time.perf_counter() - start) / 1e9)
    return best


def synchroniser(gpu: int) -> Callable[[], object]:
    """What waits for the device."""
    return cuda.cupy.cuda.runtime.deviceSynchronize if gpu >= 0 else lambda: None


def peak_memory(name: str, steps: int = 20) -> float:
    """Peak resident megabytes of a process that holds MNIST and trains with one variant on the CPU."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (name, steps))


def _peak_memory(name: str, steps: int) -> float:
    train, _ = load_mnist()
    degraded = degrade(train)
    variant = make_variant(name, degraded, train)
    random = np.random.default_rng(0)
    for _ in range(steps):
        variant.step(random.choice(len(train), 64))
    for start in range(0, 640, 64):
        variant.evaluate(np.arange(start, start + 64))
    return peak_resident_bytes() / 2**20


def peak_resident_bytes(status: Path = Path("/proc/self/status")) -> int:
    """Of this process alone: what getrusage says on Linux remembers the parent's peak."""
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024
    import resource

    peak_of_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_of_process if sys.platform == "darwin" else peak_of_process * 1024


def processor() -> str:
    """The processor's name, and how many of its cores this process may use."""
    from srmnist.engine.cpu import threads

    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        models = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} core{'s' if cores != 1 else ''}, {threads.thread_count()} threads"


def card(gpu: int) -> str:
    """The GPU's name, and its driver's CUDA."""
    runtime = cuda.cupy.cuda.runtime
    name = runtime.getDeviceProperties(gpu)["name"].decode()
    major, minor = divmod(runtime.driverGetVersion(), 1000)
    return f"{name}, CUDA {major}.{minor // 10}"
