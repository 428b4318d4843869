"""Training steps and evaluations on the GPU: lists of launches, captured once and then replayed."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence

import chainer
import numpy as np
from chainer.optimizers import adam
from chainer.types import NdArray

from srmnist.engine.gpu import plan
from srmnist.engine.gpu.device import Device
from srmnist.engine.gpu.plan import Launch, Normalisation, Shape
from srmnist.engine.gpu.resident import Resident
from srmnist.engine.gpu.vectors import Vectors, has_muon, updates
from srmnist.engine.network import normalisations, parameters
from srmnist.system.errors import first_line
from srmnist.training.recipes import muon_rate

# How the line on stderr begins where launches cannot be captured.
NO_CAPTURE = "srmnist: no CUDA graph"


def training_step(
    vectors: Vectors, data: Resident, captured: bool = True
) -> Callable[[Sequence[int]], NdArray]:
    """A function that trains on the batch that indices name, and returns its loss, shape (), on the device.

    With an optimiser of one of the recipes and one process, the update is part of the launches. Several
    processes average gradients, running statistics and loss as one vector before the update. Any other
    optimiser finds the gradients in the parameters. Which of these it is, is decided here, once.
    ``chainer.config.train`` decides at each step whether batch normalisation takes the statistics of the
    batch, or the running ones.

    Parameters
    ----------
    vectors : Vectors
        Of the model and its optimiser, which may be ChainerMN's.
    data : Resident
    captured : bool, default True
        As for `Batches`.
    """
    communicator = getattr(vectors.optimizer, "communicator", None)
    optimizer = getattr(vectors.optimizer, "actual_optimizer", vectors.optimizer)
    vectors.give_gradients()
    if communicator is None and updates(optimizer):
        muon = has_muon(optimizer)
        whole = _TrainingBatches(vectors, data, functools.partial(plan.step, muon=muon), captured)
        return lambda indices: whole(indices, _next_coefficients(optimizer, muon))
    gradients = _TrainingBatches(vectors, data, plan.gradients, captured)
    update = _update(vectors, optimizer) if updates(optimizer) else optimizer.update

    def step(indices: Sequence[int]) -> NdArray:
        loss = gradients(indices)
        if communicator is not None:
            communicator.multi_node_mean_grad(vectors.exchanged)
            loss = vectors.arrays["loss"].reshape(()).copy()
        vectors.give_gradients()
        update()
        return loss

    return step


def _update(vectors: Vectors, optimizer: chainer.Optimizer) -> Callable[[], None]:
    """A function that makes the optimiser's update on the device, by the gradients there are."""
    device = vectors.device
    coefficients = device.empty(len(plan.COEFFICIENTS), np.float32)
    muon = has_muon(optimizer)
    launch = device.bind(plan.update(muon), {**vectors.arrays, "coefficients": coefficients})

    def update() -> None:
        device.upload(_next_coefficients(optimizer, muon), coefficients)
        launch()

    return update


def _next_coefficients(optimizer: chainer.Optimizer, muon: bool) -> np.ndarray:
    """Count a step of the optimiser, and give the numbers that `plan.update` takes for it."""
    optimizer.t += 1
    for parameter in parameters(optimizer.target):
        parameter.update_rule.t += 1
    h = optimizer.hyperparam
    alpha_t = adam._learning_rate(h, optimizer.t)
    of_adam = [alpha_t, 1 - h.beta1, 1 - h.beta2, h.eps, h.eta, h.weight_decay_rate]
    return np.array([*of_adam, muon_rate(h) if muon else 0], np.float32)


class Batches:
    """A list of launches, for batches of a data set that lies on the device.

    The launches for the first batch size, which is the usual one, are made one by one at first, and from the
    second time on replayed as one CUDA graph. A batch of another size has buffers of its own.

    Parameters
    ----------
    vectors : Vectors
        Of the model.
    data : Resident
    launches : function
        One of `plan`'s that give a list from "indices" to "loss".
    captured : bool, default True
        False: no graph is made.
    """

    def __init__(
        self,
        vectors: Vectors,
        data: Resident,
        launches: Callable[[Shape, tuple[Normalisation, ...]], list[Launch]],
        captured: bool = True,
    ) -> None:
        self._device = vectors.device
        self._given = {**vectors.arrays, **data.arrays}
        self._image = data.image
        self._layers = tuple(Normalisation(link.eps, link.decay) for link in normalisations(vectors.model))
        self._launches = launches
        self._to_capture = captured
        # By a batch's size: what launches, and the buffer of the indices and of the update's coefficients.
        self._bound: dict[int, tuple[Callable[[], None], NdArray]] = {}

    def __call__(self, indices: Sequence[int], coefficients: np.ndarray | None = None) -> NdArray:
        """Compute a batch.

        Parameters
        ----------
        indices : sequence of int
            The batch's images.
        coefficients : ndarray of float32, shape (7,), optional
            Those that `plan.update` takes, if the launches have it.

        Returns
        -------
        ndarray of float32, shape ()
            The loss, on the device.
        """
        size = len(indices)
        if size not in self._bound:
            self._bound[size] = self._bind(size)
        elif self._to_capture and size == next(iter(self._bound)):
            self._to_capture = False
            run, uploaded = self._bound[size]
            self._bound[size] = _captured(self._device, run), uploaded
        run, uploaded = self._bound[size]
        staged = np.zeros(uploaded.size, np.int32)
        staged[:size] = indices
        if coefficients is not None:
            staged[size:].view(np.float32)[:] = coefficients
        self._device.upload(staged, uploaded)
        run()
        return self._given["loss"].reshape(()).copy()

    def _bind(self, size: int) -> tuple[Callable[[], None], NdArray]:
        shape = Shape(size, *self._image)
        launches = self._launches(shape, self._layers)
        # One upload brings both the indices and the update's coefficients.
        uploaded = self._device.empty(size + len(plan.COEFFICIENTS), np.int32)
        arrays = {**self._given, "indices": uploaded[:size], "coefficients": uploaded[size:].view(np.float32)}
        sizes = plan.buffers(shape)
        for name in sorted(plan.names(launches) - set(arrays)):
            arrays[name] = self._device.empty(*sizes[name])
        return self._device.bind(launches, arrays), uploaded


class _TrainingBatches:
    """`Batches` for launches of training steps, which ``chainer.config.train`` decides on.

    They are made anew, for memory's sake, when it changes: in a run it does so at most once.
    """

    def __init__(
        self, vectors: Vectors, data: Resident, launches: Callable[..., list[Launch]], captured: bool
    ) -> None:
        self._make = lambda train: Batches(vectors, data, functools.partial(launches, train=train), captured)
        self._train: bool | None = None

    def __call__(self, indices: Sequence[int], coefficients: np.ndarray | None = None) -> NdArray:
        if self._train != chainer.config.train:
            self._train = bool(chainer.config.train)
            self._batches = self._make(self._train)
        return self._batches(indices, coefficients)


def _captured(device: Device, run: Callable[..., None]) -> Callable[[], None]:
    """The same launches as one graph, or as they are where that fails."""
    try:
        return device.capture(run)
    except Exception as error:  # whatever CUDA, the driver or CuPy say: there is another way
        _say_once(first_line(error))
        return run


@functools.cache
def _say_once(reason: str) -> None:
    sys.stderr.write(f"{NO_CAPTURE} ({reason}); the kernels are launched one by one, slower\n")
