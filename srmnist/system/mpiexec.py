"""The mpiexec that has started this process: rank, size and command line, without importing MPI."""

import argparse
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# Environment variables of each process: Open MPI's; and those of MPICH, Intel MPI and srun --mpi=pmi2.
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
# Seconds that the other processes wait for the first one; on a busy computer it may be so much slower.
_PATIENCE = 15.0


def launched_rank() -> int:
    """This process's number among those that mpiexec has started; 0 without mpiexec."""
    return _number(_RANKS, 0)


def launched_size() -> int:
    """How many processes mpiexec has started; 1 without mpiexec."""
    return _number(_SIZES, 1)


def let_first_speak() -> None:
    """Wait for the first process's error message: all processes probably print the same message.

    When the first process ends, mpiexec ends the others, and the user reads one line. If it does not end,
    this process prints its own message. Without mpiexec there is no wait.
    """
    if launched_rank() > 0:
        time.sleep(_PATIENCE)


def resume_command(flags: Sequence[str] = ("-r", "--resume")) -> str:
    """The command line that starts this process again, or all processes of its job, with ``--resume``.

    The command needs nothing on the PATH. The processes that mpiexec starts cannot know mpiexec's own flags;
    a line before the command then says that they must be added.

    Parameters
    ----------
    flags : sequence of str
        The names of the flag. The command line ends with it, and an earlier use of it is left out.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=True)
    parser.add_argument(*flags, nargs="?", dest="left_out")
    others = parser.parse_known_args()[1]
    options = sys.orig_argv[1 : -len(sys.argv)]  # Python's own
    command = shlex.join([sys.executable, *options, sys.argv[0], *others, flags[-1]])
    if launched_size() == 1:
        return command
    beside_python = Path(sys.executable).parent
    mpiexec = shutil.which("mpiexec", path=f"{beside_python}{os.pathsep}{os.environ.get('PATH', '')}")
    return (
        "(add the flags that mpiexec had beside -n, such as --host, --bind-to, --oversubscribe or "
        "--allow-run-as-root)\n"
        f"{shlex.join([mpiexec or 'mpiexec', '-n', str(launched_size())])} {command}"
    )


def _number(names: tuple[str, ...], otherwise: int) -> int:
    values = [os.environ[name] for name in names if os.environ.get(name, "").isdecimal()]
    return int(values[0]) if values else otherwise
