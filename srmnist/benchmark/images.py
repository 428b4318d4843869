"""A run on so many images, from the command on: seconds to its first step, and its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from srmnist.benchmark.measure import peak_resident_bytes
from srmnist.data.mnist import write_mnist
from srmnist.system.errors import UserError
from srmnist.training.settings import Settings
from srmnist.training.train import train

COUNTS = (10_000, 100_000, 1_000_000)
_STEPS = 10
_TEST_IMAGES = 10_000  # all of MNIST's


def measured(count: int) -> dict[str, Any]:
    """Train on so many images in a process of its own, for ten steps.

    Parameters
    ----------
    count : int
        Training images: MNIST's, repeated, as IDX files in a temporary folder.

    Returns
    -------
    dict
        ``images``, ``first_step_s`` (from the start of the process to the end of the first step) and
        ``peak_memory_mb`` (resident, pages of the mapped file that were read among it).
    """
    with tempfile.TemporaryDirectory() as directory:
        data, answer = Path(directory) / "data", Path(directory) / "measured.json"
        data.mkdir()
        write_mnist(data, count, _TEST_IMAGES)
        begun = time.time()
        command = [sys.executable, "-m", __name__, str(data), str(Path(directory) / "out"), str(answer)]
        done = subprocess.run(command, capture_output=True, text=True)
        if not answer.exists():
            last = done.stderr.strip().rpartition("\n")[2]
            raise UserError(f"a run on {count:,} images: {last or f'status {done.returncode}'}")
        found = json.loads(answer.read_text())
    return {
        "images": count,
        "first_step_s": round(found["first_step"] - begun, 2),
        "peak_memory_mb": round(found["peak_bytes"] / 2**20),
    }


def main(data: str, out: str, answer: Path) -> None:
    """Train as scripts/train.py does, note the moment of the first step, and end after some steps."""
    times: list[float] = []

    def follow(progress: object) -> None:
        times.append(time.time())
        if len(times) > _STEPS:  # the first call comes before the first step
            answer.write_text(json.dumps({"first_step": times[1], "peak_bytes": peak_resident_bytes()}))
            os._exit(0)  # at once: what a run writes at its end is not measured

    train(Settings(data=data), out, terminal=sys.stdout, follow=follow)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
