"""How times are taken: in turns, round by round, so that other work on the computer disturbs all alike."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from chainer.backends import cuda

from srmnist.benchmark.variants import Chosen

_SIDE = 28
# A turn is a pause, in which the threads of the variant before stop spinning (onnxruntime's do so for 40 ms),
# one run that is not counted, and up to four measurements; fewer if these take long.
_PAUSE, _TURN, _ENOUGH_S = 0.05, 4, 0.5
_SHORTEST_S = 0.01  # of a measurement: a shorter run is repeated
GPU_RUNS = 50  # in one measurement on a GPU, which works on while the host is ahead
KINDS = ("step", "evaluate")

Task = tuple[str, str]  # the name of a variant, and one of `KINDS`


def flops(batch: int, train: bool) -> float:
    """Floating-point operations that the convolutions take by their definition, an addition being one.

    Backward costs forward twice, less the first layer's input gradient, which nobody needs.
    """
    layers = [16, 16 * 32, 32 * 64, 64]
    forward = 2 * 9 * sum(layers) * _SIDE**2 * batch
    return 3 * forward - 2 * 9 * layers[0] * _SIDE**2 * batch if train else forward


def turn(
    run: Callable[[Chosen], object],
    chosen: Chosen,
    runs: int | None = None,
    synchronise: Callable[[], object] = lambda: None,
) -> list[float]:
    """Milliseconds of a run, several times.

    Parameters
    ----------
    run : function
        A field of `Variant`.
    chosen : ndarray of int64 or slice
        The images of the batch.
    runs : int, optional
        Runs in one measurement, whose mean it is; by default as many as take 10 ms.
    synchronise : function, optional
        Waits for the device: each measurement is from an idle device to an idle device.
    """
    time.sleep(_PAUSE)
    begun = time.perf_counter()
    run(chosen)
    if runs is None:
        runs = max(1, round(_SHORTEST_S / (time.perf_counter() - begun)))
    measured: list[float] = []
    begun = time.perf_counter()
    while len(measured) < _TURN and (not measured or time.perf_counter() - begun < _ENOUGH_S):
        synchronise()
        start = time.perf_counter()
        for _ in range(runs):
            run(chosen)
        synchronise()
        measured.append((time.perf_counter() - start) / runs * 1e3)
    return measured


def alternate(
    take: Callable[[Task, int], list[float]], tasks: Sequence[Task], rounds: int, warmup: int = 1
) -> dict[Task, list[float]]:
    """Measure all tasks in turns.

    Parameters
    ----------
    take : function
        Takes a turn, in the round of that number, and returns its milliseconds.
    tasks : sequence of (str, str)
    rounds, warmup : int
        Rounds that count, and rounds before these, that do not.
    """
    times: dict[Task, list[float]] = {task: [] for task in tasks}
    for number in range(-warmup, rounds):
        for task in tasks:
            measured = take(task, number)
            if number >= 0:
                times[task] += measured
    return times


def chosen_images(count: int, batch: int, number: int) -> Chosen:
    """The images of a batch in the round of that number: random ones of `count`; a slice if these are all."""
    if batch == count:
        return slice(0, count)
    return np.random.default_rng(abs(number)).choice(count, batch, replace=batch > count)


def summary(kind: str, times: list[float]) -> dict[str, Any]:
    """The median, and the quartiles between which half of the measurements lie."""
    quartiles = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return {
        f"{kind}_ms": rounded(statistics.median(times)),
        f"{kind}_quartiles_ms": [rounded(quartiles[0]), rounded(quartiles[2])],
    }


def rounded(value: float) -> float:
    """Four digits: more than any of these measurements has."""
    return float(f"{value:.4g}")


def matrix_product_peak(gpu: int = -1, rounds: int = 7) -> float:
    """GFLOP/s of a large float32 matrix product by NumPy or CuPy, without TF32: the practical peak."""
    size, runs, synchronise = (4096, 20, synchroniser(gpu)) if gpu >= 0 else (2048, 1, lambda: None)
    a = np.random.default_rng(0).random((size, size), np.float32)
    factor = cuda.cupy.asarray(a) if gpu >= 0 else a
    best = 0.0
    for _ in range(rounds):
        synchronise()
        start = time.perf_counter()
        for _ in range(runs):
            factor @ factor
        synchronise()
        best = max(best, runs * 2 * size**3 / (time.perf_counter() - start) / 1e9)
    return rounded(best)


def synchroniser(gpu: int) -> Callable[[], object]:
    """What waits for the device."""
    return cuda.cupy.cuda.runtime.deviceSynchronize if gpu >= 0 else lambda: None


_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_resident_bytes(status: Path = _STATUS) -> int:
    """Of this process alone: what getrusage says on Linux remembers the parent's peak."""
    if status.exists():
        return resident_bytes("VmHWM", status)
    import resource

    peak_of_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_of_process if sys.platform == "darwin" else peak_of_process * 1024


def resident_bytes(field: str = "VmRSS", status: Path = _STATUS) -> int:
    """Memory of this process as Linux counts it: VmRSS now, VmHWM at its peak."""
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def can_forget_peak() -> bool:
    """Whether the system lets a process count its peak anew, as Linux does."""
    return os.access(_FORGET, os.W_OK)


def forget_peak() -> None:
    """Count the peak of this process's memory anew (proc(5): 5 in clear_refs)."""
    _FORGET.write_text("5")
