"""What the tests of survival share: the scripts, run as somebody runs and stops them."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from srmnist.engine import NO_NUMBA

SCRIPTS = Path(__file__).parents[2] / "scripts"
TRAIN = SCRIPTS / "train.py"

# Runs a script in which one function of os does something else at its N-th call.
SABOTAGE = """
import os, runpy, signal, sys, time
name, number, deed = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sys.argv = sys.argv[4:]
genuine = getattr(os, name)

def sabotaged(*args, **kwds):
    global number
    number -= 1
    if number < 0:
        exec(deed)
    return genuine(*args, **kwds)

setattr(os, name, sabotaged)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def sabotage(command: list[str], function: str, number: int, deed: str) -> list[str]:
    """The command, with a deed done at every call of ``os.function`` from the N-th on."""
    return [sys.executable, "-c", SABOTAGE, function, str(number), deed, *command[1:]]


def run(command: list[str], **kwds) -> subprocess.CompletedProcess:
    """Run a command to its end."""
    done = subprocess.run(command, **{"capture_output": True, "text": True, "timeout": 600, **kwds})
    done.stderr = complaints(done.stderr or "")
    return done


def complaints(stderr: str) -> str:
    """What a command said on stderr, but for the line that each says where there is no Numba."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.startswith(NO_NUMBA))


def start(command: list[str]) -> subprocess.Popen:
    """Start a command as a terminal would, with no signal ignored."""

    def heed() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Wait until a running process has made a file."""
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def tree(directory: Path) -> dict[Path, bytes]:
    """Every file of a directory with its content."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def refusal(done: subprocess.CompletedProcess) -> str:
    """The one line with which a script has refused to go on."""
    assert done.returncode == 2, done
    (line,) = done.stderr.splitlines()
    return line
