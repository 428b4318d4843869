"""What a run needs from its process: `Process` is alone; `RankProcess` in distributed/ is one of several."""

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TextIO

import chainer
from chainer import training
from chainer.iterators import SerialIterator
from chainer.training import extensions

from srmnist.system.device import select_device
from srmnist.training.interruption import SIGNALS, Interruption


class Process:
    """The only process of a run.

    Attributes
    ----------
    leads : bool
        Whether this process prints, draws and writes.
    size : int
        The number of processes.
    signals : tuple of int
        The signals that stop the run.
    """

    leads = True
    size = 1
    signals = SIGNALS

    def agreed(self) -> AbstractContextManager[None]:
        """Context: if any process raises UserError in it, all processes stop."""
        return nullcontext()

    def require_same(self, values: Mapping[str, object]) -> None:
        """Refuse values that differ between processes; `values` has them by the names of their flags."""

    def terminal(self) -> TextIO:
        """The stream that takes the table of losses by default."""
        return sys.stdout

    def device(self, gpu: int) -> chainer.backend.Device:
        """This process's own device, selected by `select_device`."""
        return select_device(gpu)

    def model(self, model: chainer.Chain) -> chainer.Chain:
        """The model as it is trained."""
        return model

    def optimizer(self, optimizer: chainer.Optimizer) -> chainer.Optimizer:
        """The optimizer, made to use the gradients of all processes."""
        return optimizer

    def iterators(
        self, train: range, test: range, batchsize: int, order_sampler: Callable
    ) -> tuple[SerialIterator, SerialIterator]:
        """The iterators over the indices of the training and the test images of this process."""
        return (
            SerialIterator(train, batchsize, order_sampler=order_sampler),
            SerialIterator(test, batchsize, repeat=False, shuffle=False),
        )

    def evaluator(
        self,
        iterator: SerialIterator,
        model: chainer.Chain,
        converter: Callable,
        loss: Callable | None = None,
    ) -> extensions.Evaluator:
        """The evaluation at the end of each epoch; `loss` computes a batch's loss (default: the model)."""
        return extensions.Evaluator(iterator, model, converter, device=model.device, eval_func=loss)

    def begin(self, trainer: training.Trainer, interruption: Interruption) -> None:
        """Give all processes the state of the leading one, just before the first step.

        After that, each step latches the signal that was noted.
        """
        trainer.extend(
            lambda trainer: interruption.latch(interruption.noted),
            name="latch",
            trigger=lambda trainer: True,
            priority=training.PRIORITY_WRITER + 1,
        )
