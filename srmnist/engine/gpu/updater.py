"""Training and evaluation from a data set that lies on the GPU as a whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol

import chainer
import numpy as np
from chainer import iterators, reporter, training
from chainer.types import NdArray

from srmnist.engine.gpu import machine, plan
from srmnist.engine.gpu.machine import Machine
from srmnist.engine.gpu.step import Evaluation, Step
from srmnist.engine.gpu.vectors import Vectors, computes, updates


class Pairs(Protocol):
    """A data set of pairs whose images lie in two arrays: float32, shape (N, 1, H, W), in main memory."""

    degraded: np.ndarray
    originals: np.ndarray


class Resident:
    """Pairs of images on a device, and a Chainer converter from a batch of their indices to the batch.

    Its iterators go over indices, so that no image passes through the host.

    Parameters
    ----------
    machine : Machine
        The device.
    pairs : Pairs
    """

    def __init__(self, machine: Machine, pairs: Pairs) -> None:
        self._xp = machine.xp
        self.inputs, self.targets = machine.xp.asarray(pairs.degraded), machine.xp.asarray(pairs.originals)
        self.indices = range(len(self.inputs))

    def __call__(
        self, batch: Sequence[int], device: chainer.backend.Device | None = None
    ) -> tuple[NdArray, NdArray]:
        """The images of a batch, on the device whatever `device` says."""
        first, last = batch[0], batch[-1]
        if last - first == len(batch) - 1 and all(b - a == 1 for a, b in itertools.pairwise(batch)):
            return self.inputs[first : last + 1], self.targets[first : last + 1]  # in order: no copy
        chosen = self._xp.asarray(np.asarray(batch))
        return self.inputs[chosen], self.targets[chosen]


class ResidentUpdater(training.updaters.StandardUpdater):
    """A StandardUpdater whose loss and gradients, and with plain Adam the update too, are the GPU engine's.

    Another optimiser, ChainerMN's included, finds the gradients in the parameters and updates these itself.
    With ``chainer.config.plain`` all is as in a StandardUpdater that takes its batches from the device.

    Parameters
    ----------
    iterator : SerialIterator
        Over the indices of `data`.
    optimizer : chainer.Optimizer
    data : Resident
    vectors : Vectors
        Of the model and the optimiser.
    """

    def __init__(
        self,
        iterator: iterators.SerialIterator,
        optimizer: chainer.Optimizer,
        data: Resident,
        vectors: Vectors,
    ) -> None:
        super().__init__(iterator, optimizer, converter=data)
        self.vectors = vectors
        self._step = Step(vectors, data.inputs, data.targets)

    def update_core(self) -> None:
        optimizer = self.get_optimizer("main")
        if chainer.config.plain or optimizer._loss_scale or not computes(optimizer.target):
            super().update_core()
            return
        iterator = self.get_iterator("main")
        loss = self._step.gradients(iterator.next())
        if updates(optimizer):
            self._step.update()
        else:
            optimizer.update()
        reporter.report({"loss": loss}, optimizer.target)
        if iterator.is_new_epoch:
            optimizer.new_epoch(auto=True)


class ResidentEvaluation:
    """The model's ``__call__`` for batches of indices: an ``eval_func`` for Chainer's Evaluator.

    Parameters
    ----------
    data : Resident
    vectors : Vectors
        Of the model.
    """

    def __init__(self, data: Resident, vectors: Vectors) -> None:
        self._data = data
        self._vectors = vectors
        self._evaluation = Evaluation(vectors, data.inputs, data.targets)

    def __call__(self, batch: Sequence[int]) -> chainer.Variable | NdArray:
        """The loss, shape (); reported as ``loss``."""
        model = self._vectors.model
        if chainer.config.plain or not computes(model):
            return model(*self._data(batch))
        loss = self._evaluation.loss(batch)
        reporter.report({"loss": loss}, model)
        return loss

    @staticmethod
    def converter(batch: Sequence[int], device: chainer.backend.Device | None = None) -> tuple[Sequence[int]]:
        """The indices as they are: the one argument of a call."""
        return (batch,)


def resident_bytes(batchsize: int, train: np.ndarray, test: np.ndarray) -> int:
    """Bytes of a GPU's memory that training takes: both data sets as pairs, and the buffers of a step.

    Parameters
    ----------
    batchsize : int
        Images a step.
    train, test : ndarray of uint8, shape (N, H, W)
    """
    shape = plan.Shape(batchsize, *train.shape[1:])
    return 2 * np.dtype(np.float32).itemsize * (train.size + test.size) + plan.size_in_bytes(shape)


def resident_updater(
    iterator: iterators.SerialIterator, optimizer: chainer.Optimizer, pairs: Pairs
) -> training.updaters.StandardUpdater:
    """The updater of a run whose training images lie on the current GPU.

    Parameters
    ----------
    iterator : SerialIterator
        Over ``range(len(pairs))``.
    optimizer : Optimizer
        Set up with the model, which is on that GPU.
    pairs : Pairs
    """
    device = machine.current()
    return ResidentUpdater(iterator, optimizer, Resident(device, pairs), Vectors(device, optimizer))


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
    evaluation = ResidentEvaluation(Resident(machine.current(), pairs), updater.vectors)
    return evaluation.converter, evaluation
