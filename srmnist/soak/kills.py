"""Runs killed at random moments, resumed, and compared with an untouched one."""

import contextlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from srmnist.soak.small_runs import finish, results, resumed, small_data, train_command
from srmnist.system.errors import UserError

_KILLS_A_RUN = 5


@dataclass
class Kills:
    """The outcome of killed runs.

    Attributes
    ----------
    tried, survived : int
        The number of kills, and of kills after which the run still ended with the same bits.
    while_writing : int
        Kills while a file was being written.
    failures : list of str
        The name and the error of each run that failed.
    """

    tried: int = 0
    survived: int = 0
    while_writing: int = 0
    failures: list[str] = field(default_factory=list)


def kill_runs(script: Path, number: int, seed: int, progress: Callable[[int], None]) -> Kills:
    """Kill training runs with SIGKILL at random moments, resume them, and compare with an untouched run.

    Parameters
    ----------
    script : Path
        ``scripts/train.py``.
    number : int
        Number of kills; each run is killed up to five times before it may end.
    seed : int
        Fixes the moments, as fractions of the untouched run's time.
    progress : callable
        Is called with the number of kills so far.
    """
    random = Random(seed)
    kills = Kills()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        small_data(home / "data")
        command = train_command(script, home / "data", "--epoch", 3, "--snapshot-every", 3)
        finish(command, home / "untouched")
        began = time.monotonic()
        finish(command, home / "untouched")  # again: the first may have had to compile
        duration = time.monotonic() - began
        while kills.tried < number:
            out = home / f"out{kills.tried}"
            before = kills.tried
            try:
                while kills.tried < min(number, before + _KILLS_A_RUN):
                    if not _kill(command, out, random, duration, kills):
                        break
                    progress(kills.tried)
                finish(command, out)
                if results(out) != results(home / "untouched"):
                    raise UserError("other bits than the untouched run")
                kills.survived += kills.tried - before
            except UserError as error:
                kills.failures.append(f"run {out.name}: {error}")
    return kills


def _kill(command: list[str], out: Path, random: Random, duration: float, kills: Kills) -> bool:
    """Start or resume a run and kill it; False if it had ended before."""
    aimed = random.random() < 0.5
    moment = random.uniform(0, duration)
    process = subprocess.Popen(resumed(command, out), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(moment)
    while aimed and process.poll() is None and not _writes(process, out):
        time.sleep(0.0001)
    process.kill()
    output = process.communicate()[0].decode()
    if process.returncode not in (0, -signal.SIGKILL):
        raise UserError(f"exit status {process.returncode}: {output}")
    if process.returncode == 0:
        return False
    kills.tried += 1
    kills.while_writing += _writes(process, out)
    return True


def _writes(process: subprocess.Popen, out: Path) -> bool:
    return any(out.glob(f".part-{process.pid}-*"))
