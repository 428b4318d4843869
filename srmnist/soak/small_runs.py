"""Short training runs on little data, through the script."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from srmnist.data.mnist import write_mnist
from srmnist.engine import NO_NUMBA
from srmnist.system.errors import UserError

BATCHSIZE = 16


def train_command(script: Path, directory: Path, *flags: object) -> list[str]:
    """The command that trains on small data."""
    words = [sys.executable, script, "--data", directory, "--batchsize", BATCHSIZE, *flags]
    return [str(word) for word in words]


def small_data(directory: Path, train: int = 128, test: int = 64) -> None:
    """Write MNIST's first images as IDX files."""
    directory.mkdir()
    write_mnist(directory, train, test)


def results(out: Path) -> tuple[dict[str, bytes], list[dict[str, float]], bytes, bytes]:
    """The results that do not depend on interruptions: weights, losses without times, and pictures."""
    with np.load(out / "model.npz", allow_pickle=False) as npz:
        weights = {name: array.tobytes() for name, array in npz.items()}
    log = json.loads((out / "log").read_text())
    losses = [{key: value for key, value in entry.items() if key != "elapsed_time"} for entry in log]
    pictures = (out / "loss.png").read_bytes(), (out / "learning.gif").read_bytes()
    return weights, losses, *pictures


def run_script(command: list[str]) -> subprocess.CompletedProcess:
    """Run a command to its end, within two minutes."""
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def finish(
    command: list[str], out: Path, run: Callable[[list[str]], subprocess.CompletedProcess] = run_script
) -> None:
    """Train to the end, from the last snapshot if there is one.

    Raises
    ------
    UserError
        If the script ends with another status than 0, or says anything on stderr but that Numba is missing.
    """
    done = run(resumed(command, out))
    complaints = [line for line in done.stderr.splitlines() if not line.startswith(NO_NUMBA)]
    if done.returncode != 0 or complaints:
        raise UserError(f"exit status {done.returncode}: {done.stderr}")


def resumed(command: list[str], out: Path) -> list[str]:
    """The command with ``--out``, and with ``--resume`` if there is a snapshot."""
    return [*command, "--out", str(out), *(["--resume"] if any(out.glob("snapshot_iter_*")) else [])]
