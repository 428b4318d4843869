"""What a process knows of the mpiexec that has started it, before and without MPI."""

import os
import time

# Set for each process by Open MPI's mpiexec; and by MPICH's, Intel's and Slurm's srun --mpi=pmi2.
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
# Seconds that a rank waits for each one before it, and at most.
_TURN, _LONGEST_TURN = 3.0, 10.0


def launched_rank() -> int:
    """This process's number among those that mpiexec has started; 0 without mpiexec."""
    return _number(_RANKS, 0)


def launched_size() -> int:
    """How many processes mpiexec has started; 1 without mpiexec."""
    return _number(_SIZES, 1)


def wait_for_turn() -> None:
    """Before a complaint that the other processes of mpiexec probably share: let those before this one speak.

    The end of the first ends them all, so the user reads one line. Nothing is waited for without mpiexec.
    """
    time.sleep(min(_TURN * launched_rank(), _LONGEST_TURN))


def _number(names: tuple[str, ...], otherwise: int) -> int:
    values = [os.environ[name] for name in names if os.environ.get(name, "").isdecimal()]
    return int(values[0]) if values else otherwise
