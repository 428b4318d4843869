"""Training and evaluation from a data set that lies on the GPU as a whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import chainer
import numpy as np
from chainer import iterators, reporter, training
from chainer.datasets import TupleDataset
from chainer.types import NdArray

from srmnist.engine.gpu import step
from srmnist.engine.gpu.machine import Machine


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
        self.machine = machine
        self.inputs, self.targets = (machine.xp.asarray(images) for images in pairs._datasets)
        self.indices = range(len(pairs))

    def __call__(
        self, batch: Sequence[int], device: chainer.backend.Device | None = None
    ) -> tuple[NdArray, NdArray]:
        """The images of a batch, on the device whatever `device` says."""
        first, last = batch[0], batch[-1]
        if last - first == len(batch) - 1 and all(b - a == 1 for a, b in itertools.pairwise(batch)):
            return self.inputs[first : last + 1], self.targets[first : last + 1]  # in order: no copy
        chosen = self.machine.xp.asarray(np.asarray(batch))
        return self.inputs[chosen], self.targets[chosen]


class ResidentUpdater(training.updaters.StandardUpdater):
    """A StandardUpdater whose steps are the GPU engine's, where that can compute them.

    With ``chainer.config.plain``, or with another optimiser than plain Adam, it is a StandardUpdater that
    takes its batches from the device.

    Parameters
    ----------
    iterator : SerialIterator
        Over the indices of `data`.
    optimizer : chainer.Optimizer
        Set up with a model that is on the device.
    data : Resident
    average : callable, optional
        Called with the step between its gradients and its update: whoever trains on several devices averages
        ``step.gradient`` there, in place.
    """

    def __init__(
        self,
        iterator: iterators.SerialIterator,
        optimizer: chainer.Optimizer,
        data: Resident,
        average: Callable[[step.Step], None] | None = None,
    ) -> None:
        super().__init__(iterator, optimizer, converter=data)
        self._step = step.Step(data.machine, optimizer, data.inputs, data.targets)
        self._average = average

    def update_core(self) -> None:
        optimizer = self.get_optimizer("main")
        if chainer.config.plain or not step.fits(optimizer):
            super().update_core()
            return
        iterator = self.get_iterator("main")
        loss = self._step.gradients(iterator.next())
        if self._average is not None:
            self._average(self._step)
        self._step.update()
        reporter.report({"loss": loss}, optimizer.target)
        if iterator.is_new_epoch:
            optimizer.new_epoch(auto=True)
