"""Scripts that tests run as a user at a terminal does, and their output and files."""

import subprocess
import time
from pathlib import Path

from srmnist.engine import NO_NUMBA

SCRIPTS = Path(__file__).parents[2] / "scripts"
TRAIN = SCRIPTS / "train.py"


def run(command: list[str], **kwds) -> subprocess.CompletedProcess:
    """Run a command to its end."""
    done = subprocess.run(command, **{"capture_output": True, "text": True, "timeout": 600, **kwds})
    done.stderr = complaints(done.stderr or "")
    return done


def complaints(stderr: str) -> str:
    """The lines that a command wrote on stderr, without the line that Numba is missing."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.startswith(NO_NUMBA))


def wait_for(path: Path, process) -> None:
    """Wait until a running process has made a file."""
    while not path.exists():
        assert process.poll() is None, process.wait()
        time.sleep(0.01)


def tree(directory: Path) -> dict[Path, bytes]:
    """Every file of a directory with its content."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def refusal(done: subprocess.CompletedProcess) -> str:
    """The only line on stderr of a script that refused its input."""
    assert done.returncode == 2, done
    (line,) = complaints(done.stderr).splitlines()
    return line
