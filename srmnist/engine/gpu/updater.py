"""Training and evaluation from a data set that lies on the GPU as a whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import chainer
import numpy as np
from chainer import iterators, reporter, training
from chainer.datasets import TupleDataset
from chainer.types import NdArray

from srmnist.engine.gpu import machine
from srmnist.engine.gpu.machine import Machine
from srmnist.engine.gpu.step import Evaluation, Step
from srmnist.engine.gpu.vectors import Vectors, computes, updates


class Resident:
    """Pairs of images on a device, and a Chainer converter from a batch of their indices to the batch.

    Its iterators go over indices, so that no image passes through the host.

    Parameters
    ----------
    machine : Machine
        The device.
    pairs : TupleDataset
        (degraded, original), float32 arrays of shape (N, 1, H, W) in main memory.
    """

    def __init__(self, machine: Machine, pairs: TupleDataset) -> None:
        self._xp = machine.xp
        self.inputs, self.targets = (machine.xp.asarray(images) for images in pairs._datasets)
        self.indices = range(len(pairs))

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


def resident_updater(
    iterator: iterators.SerialIterator, optimizer: chainer.Optimizer, pairs: TupleDataset
) -> training.updaters.StandardUpdater:
    """The updater of a run whose training images lie on the current GPU.

    Parameters
    ----------
    iterator : SerialIterator
        Over ``range(len(pairs))``.
    optimizer : Optimizer
        Set up with the model, which is on that GPU.
    pairs : TupleDataset
        (degraded, original), float32 arrays of shape (N, 1, H, W) in main memory.
    """
    device = machine.current()
    return ResidentUpdater(iterator, optimizer, Resident(device, pairs), Vectors(device, optimizer))


def resident_evaluation(
    updater: training.updaters.StandardUpdater, pairs: TupleDataset
) -> tuple[Callable, Callable]:
    """A converter and an ``eval_func`` for Chainer's Evaluator, whose iterator is over ``range(len(pairs))``.

    Parameters
    ----------
    updater : StandardUpdater
        What `resident_updater` gave for the run.
    pairs : TupleDataset
        The test images, as for `resident_updater`.
    """
    evaluation = ResidentEvaluation(Resident(machine.current(), pairs), updater.vectors)
    return evaluation.converter, evaluation
