"""`RankProcess`: one of several processes of a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

import chainer
from chainer import training
from chainer.iterators import SerialIterator
from chainer.training import extensions

from srmnist.system.device import select_device
from srmnist.system.errors import UserError
from srmnist.training.distributed.agreement import RANK_SIGNALS, Agreement
from srmnist.training.distributed.shares import ShareEvaluator, ShareIterator
from srmnist.training.interruption import Interruption
from srmnist.training.process import Process


class AgreedError(UserError):
    """A UserError at which all ranks stop, at the same place of the program."""


class RankProcess(Process):
    """One of several processes of a run.

    Parameters
    ----------
    world : mpi4py.MPI.Comm
    sync_bn : bool
        Whether batch normalisation takes its statistics from the batches of all ranks.

    Attributes
    ----------
    rank, size : int
        This process's number, and how many there are.
    leads : bool
        Whether this is rank 0.
    comm : chainermn.CommunicatorBase
        ChainerMN's communicator, made by `connect`.
    """

    signals = RANK_SIGNALS

    def __init__(self, world: Any, sync_bn: bool) -> None:
        self._world = world
        self._sync_bn = sync_bn
        self.rank: int = world.rank
        self.size: int = world.size
        self.leads = self.rank == 0

    def connect(self, communicator: str) -> None:
        """Make the ChainerMN communicator, and divide this computer's cores among the ranks on it."""
        import chainermn

        self.comm = chainermn.create_communicator(communicator, self._world)
        # The kernel that copies all arrays at once does not compile with CuPy 14, whose headers no longer
        # include "half". (PureNcclCommunicator.set_config sets True whatever it is given.)
        with self.comm.config_scope():
            self.comm.batched_copy = False
        _divide_cores(self._world)

    @contextmanager
    def agreed(self) -> Iterator[None]:
        failure = None
        try:
            yield
        except UserError as error:
            failure = str(error)
        self._stop_at_first(failure)

    def require_same(self, values: Mapping[str, object]) -> None:
        first = self._world.bcast(dict(values))
        differing = [name.replace("_", "-") for name in values if values[name] != first[name]]
        self._stop_at_first(f"--{differing[0]}: is not the same as rank 0's" if differing else None)

    def _stop_at_first(self, failure: str | None) -> None:
        """Stop all ranks if one has failed, and let rank 0 say why."""
        failures = enumerate(self._world.allgather(failure))
        failed = next(((rank, text) for rank, text in failures if text is not None), None)
        if failed is None:
            return
        if not self.leads:
            raise SystemExit(2)
        rank, text = failed
        raise AgreedError(f"rank {rank}: {text}" if rank else text)

    def terminal(self) -> TextIO:
        return _Pipe(sys.stdout)

    def device(self, gpu: int) -> chainer.backend.Device:
        own = self.comm.intra_rank if gpu >= 0 else 0
        try:
            return select_device(gpu + own)
        except UserError as error:
            others = f"; each of the {self.comm.intra_size} ranks on this computer takes one" if own else ""
            raise UserError(f"{error}{others}") from error

    def model(self, model: chainer.Chain) -> chainer.Chain:
        if not self._sync_bn:
            return model
        from chainermn.links import create_mnbn_model

        warned = chainer.disable_experimental_feature_warning
        chainer.disable_experimental_feature_warning = True  # "MultiNodeBatchNormalization is experimental"
        try:
            return create_mnbn_model(model, self.comm)
        finally:
            chainer.disable_experimental_feature_warning = warned

    def optimizer(self, optimizer: chainer.Optimizer) -> Any:
        from chainermn import create_multi_node_optimizer

        return create_multi_node_optimizer(optimizer, self.comm)

    def iterators(
        self, train: range, test: range, batchsize: int, order_sampler: Callable
    ) -> tuple[SerialIterator, SerialIterator]:
        return (
            ShareIterator(train, batchsize, self.rank, self.size, order_sampler=order_sampler),
            ShareIterator(test, batchsize, self.rank, self.size, repeat=False, shuffle=False),
        )

    def evaluator(
        self,
        iterator: ShareIterator,
        model: chainer.Chain,
        converter: Callable,
        loss: Callable | None = None,
    ) -> extensions.Evaluator:
        from chainermn import create_multi_node_evaluator

        evaluator = ShareEvaluator(iterator, model, converter, device=model.device, eval_func=loss)
        return create_multi_node_evaluator(evaluator, self.comm)

    def begin(self, trainer: training.Trainer, interruption: Interruption) -> None:
        resumed = self.leads and trainer.updater.iteration > 0
        state = self._world.bcast(chainer.serializers.npz.serialize(trainer) if resumed else None)
        if state is not None and not self.leads:
            chainer.serializers.NpzDeserializer(state).load(trainer)
            iterator = trainer.updater.get_iterator("main")
            iterator.order_sampler.epoch = iterator.epoch + 1  # the state includes this epoch's order
        optimizer = trainer.updater.get_optimizer("main")
        optimizer.update()  # ChainerMN's first update only sends rank 0's weights to the others
        trainer.extend(Agreement(self.comm, optimizer.target, interruption), trigger=lambda trainer: True)


class _Pipe:
    """A stream that is never a terminal.

    mpiexec gives its processes a terminal, but passes their output on to its own, which may be a file.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _divide_cores(world: Any) -> None:
    """Set this rank's number of threads: its cores, divided by the number of ranks that use them too."""
    try:
        from srmnist.engine.cpu import threads
    except ImportError:  # no Numba, no engine
        return
    if "NUMBA_NUM_THREADS" in os.environ or not hasattr(os, "sched_getaffinity"):
        return
    from mpi4py import MPI

    mine = os.sched_getaffinity(0)
    computer = world.Split_type(MPI.COMM_TYPE_SHARED)
    ranks = sum(not mine.isdisjoint(cores) for cores in computer.allgather(mine))
    computer.Free()
    threads.set_thread_count(threads.thread_count() // ranks)
