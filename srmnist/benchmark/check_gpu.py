"""Whether the GPU engine is right on a card, and how fast: everything in one run of some minutes."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from chainer.serializers import npz

from srmnist.benchmark import comparison, kernels
from srmnist.system.device import select_device
from srmnist.system.errors import UserError
from srmnist.training.settings import Settings
from srmnist.training.train import train


def run(gpu: int, tests: Path, rounds: int = 10) -> dict[str, Any]:
    """First the tests on the card, then the times of kernels, of all variants and of ten epochs.

    Parameters
    ----------
    gpu : int
        CUDA device number.
    tests : Path
        The folder of the tests.
    rounds : int, default 10
        Turns that each variant takes.

    Returns
    -------
    dict
        What results/gpu.json holds: the card under "machine", pytest's last line, `kernels.run`,
        `comparison.run_gpu`, and seconds and errors of ten epochs, run twice.

    Raises
    ------
    UserError
        If the device is not usable, if a test fails, or if two runs of a seed do not give the same weights.
    """
    select_device(gpu)
    begun = time.monotonic()
    result: dict[str, Any] = {"tests": passed(tests)}
    result["kernels"] = kernels.run(gpu, 64)
    result["comparison"] = comparison.run_gpu(64, rounds, gpu)
    result["ten_epochs"] = twice(Settings(gpu=gpu))
    return {"machine": result["kernels"]["machine"], **result, "seconds": time.monotonic() - begun}


def passed(tests: Path) -> str:
    """The last line of pytest, once every test that needs a GPU has passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(tests)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tests.parent)
    last = done.stdout.strip().rpartition("\n")[2]
    if done.returncode != 0 or "passed" not in last:
        sys.stderr.write(done.stdout)
        raise UserError(
            f"the tests on the GPU fail ({last or done.stderr.strip()}); pytest -m gpu repeats them"
        )
    return last


def twice(settings: Settings) -> list[dict[str, float]]:
    """Seconds and error of two runs without files, which must give the same weights bit for bit."""
    rows, weights = [], []
    for _ in range(2):
        done = train(settings, terminal=io.StringIO())
        weights.append({name: array.tobytes() for name, array in npz.serialize(done.model).items()})
        rows.append({"seconds": done.seconds, "mse": done.mse})
    if weights[0] != weights[1]:
        raise UserError(f"--gpu {settings.gpu}: two runs of seed {settings.seed} give different weights")
    return rows


def table(result: dict[str, Any]) -> str:
    """The result for a terminal."""
    epochs = [f"{row['seconds']:.2f} s, validation MSE {row['mse']:.6f}" for row in result["ten_epochs"]]
    parts = [result["tests"], kernels.table(result["kernels"]), comparison.table(result["comparison"])]
    return "\n\n".join([*parts, "ten epochs, twice, to the same bits: " + "; ".join(epochs)])
