"""A run on so many images, from the command on: seconds to its first step, and its memory."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from srmnist.benchmark.measure import peak_resident_bytes
from srmnist.data import embedded_mnist
from srmnist.system.errors import UserError
from srmnist.training.settings import Settings
from srmnist.training.train import train

COUNTS = (10_000, 100_000, 1_000_000)
_STEPS = 10
_AT_ONCE = 10_000  # images that are written at once


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
        write_images(data, count)
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


def write_images(directory: Path, count: int) -> None:
    """A data set of MNIST's images in IDX format: so many training images, and the test images."""
    train_images, test_images = (split.images for split in embedded_mnist())
    for half, images, number in (("train", train_images, count), ("t10k", test_images, len(test_images))):
        with (directory / f"{half}-images-idx3-ubyte").open("wb") as file:
            file.write(struct.pack(">I3I", 0x00000803, number, *images.shape[1:]))
            for start in range(0, number, _AT_ONCE):
                chosen = np.arange(start, min(start + _AT_ONCE, number)) % len(images)
                file.write(images[chosen].tobytes())


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
