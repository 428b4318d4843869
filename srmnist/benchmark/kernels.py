"""What each kernel of a training step costs on a GPU, and the step as one CUDA graph."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from srmnist.benchmark.machine import card
from srmnist.engine.gpu import device as devices
from srmnist.engine.gpu import plan
from srmnist.engine.gpu.device import Device
from srmnist.engine.network import parameters
from srmnist.system.device import device_errors, select_device
from srmnist.training.trainer import initial_model

_LAUNCHES, _ROUNDS = 50, 9
_SIDE, _SMALL, _IMAGES = 28, 10, 1024  # the images' side, before and after they are shrunk; their number
_EPS, _DECAY = 2e-5, 0.9  # Chainer's


def run(gpu: int, batch: int) -> dict[str, Any]:
    """Measure every launch of a training step by itself, and the whole step.

    Parameters
    ----------
    gpu : int
        CUDA device number.
    batch : int
        Images a step, of 28×28.

    Returns
    -------
    dict
        The card under "machine"; under "kernels", for each launch in order, its blocks and threads,
        registers a thread, bytes of local and shared memory, and microseconds; their sum, and the
        microseconds of the step as one graph.

    Raises
    ------
    UserError
        If the device is not usable.
    """
    select_device(gpu)
    with device_errors(gpu):
        device = devices.current()
        rows, step = measured(device, batch, lambda run: _microseconds(device, run))
        for row in rows:
            kernel = device.kernel(row["kernel"])
            row |= {
                "registers": kernel.num_regs,
                "local_bytes": kernel.local_size_bytes,
                "shared_bytes": kernel.shared_size_bytes,
            }
    return {
        "machine": card(gpu),
        "batch": batch,
        "kernels": rows,
        "sum_us": sum(row["microseconds"] for row in rows),
        "step_us": step,
    }


def measured(
    device: Device, batch: int, microseconds: Callable[[Callable[..., None]], float]
) -> tuple[list[dict[str, Any]], float]:
    """A row for each launch of a training step, and the step's microseconds.

    `microseconds` tells how long a function from `Device.bind` takes.
    """
    shape = plan.Shape(batch, _SIDE, _SIDE)
    launches = plan.step(shape, (plan.Normalisation(_EPS, _DECAY),) * 3)
    sizes = plan.buffers(shape) | {"images": (_IMAGES * _SIDE**2, np.uint8)}
    arrays = {name: device.empty(*sizes[name]) for name in sorted(plan.names(launches))}
    for array in arrays.values():
        array[...] = 0  # as Adam's moments begin
    for name, values in _given(batch).items():
        device.upload(values, arrays[name])
    whole = device.bind(launches, arrays)
    whole()  # from now on all buffers hold real numbers: zeros take less power, so a GPU may be faster
    step = microseconds(whole)
    rows = [
        {
            "kernel": launch.kernel,
            "blocks": launch.blocks,
            "threads": launch.threads,
            "microseconds": microseconds(device.bind([launch], arrays)),
        }
        for launch in launches
    ]
    return rows, step


def _given(batch: int) -> dict[str, np.ndarray]:
    """What a training step begins with: initial weights, and images of noise."""
    random, (starts, fractions) = np.random.default_rng(0), plan.samples(_SIDE, _SMALL)
    return {
        "parameters": np.concatenate([each.array.ravel() for each in parameters(initial_model(0))]),
        "coefficients": np.array([1e-3, 0.1, 1e-3, 1e-8, 1, 0, 0], np.float32),  # Adam's defaults
        "images": random.integers(0, 256, _IMAGES * _SIDE**2, np.uint8),
        "indices": random.integers(0, _IMAGES, batch, np.int32),
        **dict.fromkeys(("rows", "columns"), starts),
        **dict.fromkeys(("row_fractions", "column_fractions"), fractions),
    }


def _microseconds(device: Device, run: Callable[..., None]) -> float:
    """Of one run, from a graph of many; the median of some rounds, by the device's own clock."""

    def many(*streams: Any) -> None:
        for _ in range(_LAUNCHES):
            run(*streams)

    run()
    replay = device.capture(many)
    replay()
    begun, ended = (device.xp.cuda.Event() for _ in range(2))
    times = []
    for _ in range(_ROUNDS):
        begun.record()
        replay()
        ended.record()
        ended.synchronize()
        times.append(device.xp.cuda.get_elapsed_time(begun, ended) / _LAUNCHES * 1e3)
    return statistics.median(times)


def table(result: dict[str, Any]) -> str:
    """The result for a terminal, no wider than 79 columns."""
    lines = [
        f"{result['machine']}, batch {result['batch']}",
        "",
        f"{'':18}{'blocks':>8}{'threads':>9}{'registers':>11}{'local':>8}{'shared':>9}{'time':>12}",
    ]
    for row in result["kernels"]:
        lines.append(
            f"{row['kernel']:18}{row['blocks']:8}{row['threads']:9}{row['registers']:11}"
            f"{row['local_bytes']:6} B{row['shared_bytes']:7} B{row['microseconds']:9.2f} µs"
        )
    lines += ["", f"sum {result['sum_us']:.1f} µs; the step as one graph {result['step_us']:.1f} µs"]
    return "\n".join(lines)
