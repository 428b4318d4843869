"""A training step and an evaluation on the GPU: launches captured once for each size, then replayed."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
from chainer.optimizers import adam
from chainer.types import NdArray

from srmnist.engine.gpu import plan
from srmnist.engine.gpu.machine import Machine
from srmnist.engine.gpu.plan import Launch, Normalisation, Shape
from srmnist.engine.gpu.vectors import Vectors
from srmnist.engine.network import normalisations, parameters
from srmnist.system.errors import first_line

# How the line begins that stands on stderr, once, where launches cannot be captured.
NO_CAPTURE = "srmnist: no CUDA graph"


class _Computation(ABC):
    """Lists of launches on the batches of a resident data set.

    Parameters
    ----------
    vectors : Vectors
        Of the model.
    inputs, targets : ndarray of float32, shape (N, 1, H, W)
        The data set, on the device.
    captured : bool, default True
        Whether the launches for batches of the first size are captured once and then replayed.
    """

    def __init__(self, vectors: Vectors, inputs: NdArray, targets: NdArray, captured: bool = True) -> None:
        self._vectors = vectors
        self._captured = captured
        self._data = {"inputs": inputs, "targets": targets}
        self._image = inputs.shape[2:]
        self._given: dict[str, NdArray] = {}
        self._batches: dict[int, _Batch] = {}

    @abstractmethod
    def _lists(self, shape: Shape, layers: tuple[Normalisation, ...]) -> list[list[Launch]]:
        """What is launched for a batch, from gathering it to its loss in "loss", and more."""

    def _start(self, indices: Sequence[int]) -> _Batch:
        """Run the first list for a batch."""
        given = self._vectors.attached()
        if given is not self._given:
            self._given, self._batches = given, {}
        size = len(indices)
        if size not in self._batches:
            # The first size is the one that comes again and again.
            self._batches[size] = self._batch_of(size, captured=self._captured and not self._batches)
        batch = self._batches[size]
        self._vectors.machine.upload(np.asarray(indices, np.int32), batch.arrays["indices"])
        batch.runs[0]()
        return batch

    def _batch_of(self, size: int, captured: bool) -> _Batch:
        shape = Shape(size, *self._image)
        links = normalisations(self._vectors.model)
        layers = tuple(Normalisation(link.eps, link.decay) for link in links)
        lists, given = self._lists(shape, layers), {**self._data, **self._given}
        return _Batch(self._vectors.machine, lists, given, plan.buffers(shape), captured)


class Step(_Computation):
    """Training steps of one model, for which `vectors.computes` holds.

    Between `gradients` and `update` each parameter's ``grad`` holds its gradient, to be looked at or to be
    averaged over several devices: in place, as the arrays are views of `gradient`.

    Attributes
    ----------
    gradient : ndarray of float32, shape (23985,)
        All gradients in one vector, in the order of `network.parameters`.
    """

    @property
    def gradient(self) -> NdArray:
        return self._given["gradient"]

    def gradients(self, indices: Sequence[int]) -> NdArray:
        """Compute the gradients of a batch's loss, and bring the running statistics up to date.

        Parameters
        ----------
        indices : sequence of int
            The batch's images.

        Returns
        -------
        ndarray of float32, shape ()
            The loss, on the device.
        """
        self._batch = self._start(indices)
        own = parameters(self._vectors.model)
        for parameter, gradient in zip(own, self._vectors.gradients, strict=True):
            if parameter.grad is not gradient:
                parameter.grad = gradient
        return self._batch.loss()

    def update(self) -> None:
        """Let Adam, for which `vectors.updates` holds, update the parameters by the gradients there are."""
        optimizer = self._vectors.optimizer
        optimizer.t += 1
        for parameter in parameters(optimizer.target):
            parameter.update_rule.t += 1
        h = optimizer.hyperparam
        alpha_t = adam._learning_rate(h, optimizer.t)
        coefficients = (alpha_t, 1 - h.beta1, 1 - h.beta2, h.eps, h.eta, h.weight_decay_rate)
        self._vectors.machine.upload(np.array(coefficients, np.float32), self._batch.arrays["coefficients"])
        self._batch.runs[1]()

    def _lists(self, shape: Shape, layers: tuple[Normalisation, ...]) -> list[list[Launch]]:
        return [plan.gradients(shape, layers), plan.adam()]


class Evaluation(_Computation):
    """The loss of a model, for which `vectors.computes` holds, with its running statistics."""

    def loss(self, indices: Sequence[int]) -> NdArray:
        """The loss on a batch.

        Parameters
        ----------
        indices : sequence of int
            The batch's images.

        Returns
        -------
        ndarray of float32, shape ()
            On the device.
        """
        return self._start(indices).loss()

    def _lists(self, shape: Shape, layers: tuple[Normalisation, ...]) -> list[list[Launch]]:
        return [plan.evaluation(shape, layers)]


class _Batch:
    """Lists of launches for batches of one size, on buffers of their own."""

    def __init__(
        self,
        machine: Machine,
        lists: list[list[Launch]],
        given: dict[str, NdArray],
        sizes: dict[str, tuple[int, type]],
        captured: bool,
    ) -> None:
        fresh = sorted(set().union(*map(plan.names, lists)) - set(given))
        self.arrays = {**given, **{name: machine.empty(*sizes[name]) for name in fresh}}
        self.runs = [_Replayed(machine, machine.bind(launches, self.arrays), captured) for launches in lists]

    def loss(self) -> NdArray:
        """The loss, shape (), as the next batch will not change it."""
        return self.arrays["loss"].copy().reshape(())


class _Replayed:
    """Launches that are made one by one at first; from the second time on, replayed as one CUDA graph."""

    def __init__(self, machine: Machine, run: Callable[[], None], captured: bool) -> None:
        self._machine = machine
        self._run = run
        self._to_capture = captured
        self._calls = 0

    def __call__(self) -> None:
        if self._to_capture and self._calls == 1:
            self._capture()
        self._calls += 1
        self._run()

    def _capture(self) -> None:
        try:
            self._run = self._machine.capture(self._run)
        except Exception as error:  # whatever CUDA, the driver or CuPy say: there is another way
            _say_once(f"{NO_CAPTURE} ({first_line(error)}); the kernels are launched one by one, slower\n")


_said: set[str] = set()


def _say_once(line: str) -> None:
    if NO_CAPTURE not in _said:
        _said.add(NO_CAPTURE)
        sys.stderr.write(line)
