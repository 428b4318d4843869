"""What a process knows of the mpiexec that has started it, before and without MPI."""

import os
import time

# Set for each process by Open MPI's mpiexec; and by MPICH's, Intel's and Slurm's srun --mpi=pmi2.
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
# Seconds that other processes wait for the first one, which may be that much later where machines are busy.
_PATIENCE = 15.0


def launched_rank() -> int:
    """This process's number among those that mpiexec has started; 0 without mpiexec."""
    return _number(_RANKS, 0)


def launched_size() -> int:
    """How many processes mpiexec has started; 1 without mpiexec."""
    return _number(_SIZES, 1)


def let_first_speak() -> None:
    """Before a complaint that all processes of mpiexec probably share: wait for the first one's.

    Its end ends the others, so the user reads one line; if it does not come, it is this process's own to say.
    Nothing is waited for without mpiexec.
    """
    if launched_rank() > 0:
        time.sleep(_PATIENCE)


def _number(names: tuple[str, ...], otherwise: int) -> int:
    values = [os.environ[name] for name in names if os.environ.get(name, "").isdecimal()]
    return int(values[0]) if values else otherwise
