"""A run and its fellow processes: here there are none; `distributed` has the run that has some."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TextIO

import chainer
from chainer import training
from chainer.dataset import concat_examples
from chainer.iterators import SerialIterator
from chainer.training import extensions

from srmnist.system.device import select_device
from srmnist.training.interruption import Interruption


class Alone:
    """The run of one process.

    Attributes
    ----------
    leads : bool
        Whether this process prints, plots and writes.
    size : int
        Number of processes.
    """

    leads = True
    size = 1

    def agreed(self) -> AbstractContextManager[None]:
        """Context in which any process may raise UserError; then none gets further."""
        return nullcontext()

    def require_same(self, identity: Mapping[str, int | str]) -> None:
        """Refuse flags or data that are not the same in all processes."""

    def terminal(self) -> TextIO:
        """Where the table of losses goes unless told otherwise."""
        return sys.stdout

    def interruption(self) -> Interruption:
        """The extension that stops the run at a signal."""
        return Interruption()

    def device(self, gpu: int) -> chainer.backend.Device:
        """This process's own device, as `select_device` selects it."""
        return select_device(gpu)

    def model(self, model: chainer.Chain) -> chainer.Chain:
        """The model as it is trained."""
        return model

    def optimizer(self, optimizer: chainer.Optimizer) -> chainer.Optimizer:
        """The optimizer as it sees the gradients of all processes."""
        return optimizer

    def iterators(
        self, train: Sequence, test: Sequence, batchsize: int, order_sampler: Callable
    ) -> tuple[SerialIterator, SerialIterator]:
        """What this process trains on, and what it evaluates."""
        return (
            SerialIterator(train, batchsize, order_sampler=order_sampler),
            SerialIterator(test, batchsize, repeat=False, shuffle=False),
        )

    def evaluator(
        self,
        iterator: SerialIterator,
        model: chainer.Chain,
        converter: Callable = concat_examples,
        loss: Callable | None = None,
    ) -> extensions.Evaluator:
        """The evaluation at the end of each epoch: of `loss`, the model itself by default."""
        return extensions.Evaluator(iterator, model, converter, device=model.device, eval_func=loss)

    def begin(self, trainer: training.Trainer, interruption: Interruption) -> None:
        """Bring all processes to where the leading one is, just before the first step."""
