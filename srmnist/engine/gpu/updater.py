"""Chainer's updater and evaluation, for a data set that lies on the GPU as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import chainer
import numpy as np
from chainer import iterators, reporter, training
from chainer.types import NdArray

from srmnist.engine.gpu import device as devices
from srmnist.engine.gpu import plan
from srmnist.engine.gpu.resident import Pairs, Resident
from srmnist.engine.gpu.step import Batches, training_step
from srmnist.engine.gpu.vectors import Vectors, computes


def resident_bytes(batchsize: int, train: np.ndarray, test: np.ndarray) -> int:
    """Bytes of a GPU's memory that training takes: both data sets, and the buffers of a step.

    Parameters
    ----------
    batchsize : int
        Images a step.
    train, test : ndarray of uint8, shape (N, H, W)
    """
    shape = plan.Shape(batchsize, *train.shape[1:])
    return train.size + test.size + plan.size_in_bytes(shape)


def resident_updater(
    iterator: iterators.SerialIterator, optimizer: chainer.Optimizer, pairs: Pairs, plain: bool = False
) -> training.updaters.StandardUpdater:
    """The updater of a run whose training images lie on the current GPU.

    Parameters
    ----------
    iterator : SerialIterator
        Over ``range(len(pairs))``: only indices come from the host.
    optimizer : Optimizer
        Set up with the model, which is on that GPU, and with its hooks.
    pairs : Pairs
    plain : bool, default False
        Whether Chainer's functions compute the steps. They do anyway if the engine cannot compute the model
        or the optimiser scales the loss.
    """
    data = Resident(devices.current(), pairs)
    if plain or optimizer._loss_scale or not computes(optimizer.target):
        return training.updaters.StandardUpdater(iterator, optimizer, converter=data)
    return EngineUpdater(iterator, optimizer, data)


def resident_evaluation(
    updater: training.updaters.StandardUpdater, pairs: Pairs
) -> tuple[Callable, Callable]:
    """A converter and an ``eval_func`` for Chainer's Evaluator, whose iterator is over ``range(len(pairs))``.

    Parameters
    ----------
    updater : StandardUpdater
        What `resident_updater` gave for the run.
    pairs : Pairs
        The test images, as for `resident_updater`.
    """
    data, model = Resident(devices.current(), pairs), updater.get_optimizer("main").target
    if not isinstance(updater, EngineUpdater):
        return data, model
    loss_of = Batches(updater.vectors, data, plan.evaluation)

    def evaluate(indices: Sequence[int]) -> NdArray:
        loss = loss_of(indices)
        reporter.report({"loss": loss}, model)
        return loss

    return lambda indices, device=None: (indices,), evaluate


class EngineUpdater(training.updaters.StandardUpdater):
    """A StandardUpdater whose steps the GPU engine computes.

    Parameters
    ----------
    iterator : SerialIterator
        Over the indices of `data`.
    optimizer : Optimizer
    data : Resident

    Attributes
    ----------
    vectors : Vectors
        Of the model and the optimiser.
    averages_all : bool
        True: where several processes train, a step averages the running statistics and the loss, too.
    """

    averages_all = True

    def __init__(
        self, iterator: iterators.SerialIterator, optimizer: chainer.Optimizer, data: Resident
    ) -> None:
        super().__init__(iterator, optimizer)
        devices.current().compile()  # now, and not in the time of the first step
        self.vectors = Vectors(devices.current(), optimizer)
        self._step = training_step(self.vectors, data)

    def update_core(self) -> None:
        iterator, optimizer = self.get_iterator("main"), self.get_optimizer("main")
        reporter.report({"loss": self._step(iterator.next())}, optimizer.target)
        if iterator.is_new_epoch:
            optimizer.new_epoch(auto=True)
