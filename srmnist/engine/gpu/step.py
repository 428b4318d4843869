"""A training step on the GPU: gather, forward, loss, backward, Adam; captured once, then replayed.

The model's parameters, gradients, running statistics and Adam's moments stay where Chainer keeps them, under
the same names: only that their arrays become views of the few vectors that the kernels read and write. So
snapshots, figures and whatever else looks at the model go on as before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import chainer
import numpy as np
from chainer import optimizers
from chainer.optimizers import adam
from chainer.types import NdArray

from srmnist.engine.gpu import plan
from srmnist.engine.gpu.machine import Machine
from srmnist.engine.network import SHAPES, normalisations, parameters

# How the line begins that stands on stderr, once, where a step cannot be captured.
NO_CAPTURE = "srmnist: no CUDA graph"


def fits(optimizer: chainer.Optimizer) -> bool:
    """Whether a step of this optimiser is what `Step` computes: plain Adam on CNNAE in float32, no hooks."""
    model = optimizer.target
    hyperparam = optimizer.hyperparam
    return (
        type(optimizer) is optimizers.Adam
        and not (hyperparam.amsgrad or hyperparam.adabound or optimizer._loss_scale)
        and not _has_hooks(optimizer)
        and [parameter.shape for parameter in parameters(model)] == SHAPES
        and all(_plain_rule(parameter, optimizer) for parameter in model.params())
    )


def _has_hooks(hookable: chainer.Optimizer | chainer.optimizer.UpdateRule) -> bool:
    hooks = hookable._hookable
    return bool(hooks._pre_update_hooks or hooks._post_update_hooks)


def _plain_rule(parameter: chainer.Parameter, optimizer: chainer.Optimizer) -> bool:
    rule = parameter.update_rule
    return (
        type(rule) is adam.AdamRule
        and rule.enabled
        and rule.t == optimizer.t
        and not _has_hooks(rule)
        and rule.hyperparam.parent is optimizer.hyperparam
        and len(vars(rule.hyperparam)) == 1  # that parent: no value of its own
        and parameter.dtype == np.float32
    )


class Step:
    """Training steps of one model with one optimiser, for which `fits` holds, on a resident data set.

    Between `gradients` and `update` each parameter's ``grad`` holds its gradient, to be looked at or to be
    averaged over several devices: in place, as the arrays are views of `gradient`.

    Parameters
    ----------
    machine : Machine
        Where the model is.
    optimizer : chainer.optimizers.Adam
    inputs, targets : ndarray of float32, shape (N, 1, H, W)
        The data set, on the device.
    captured : bool, default True
        Whether the launches for batches of the first size are captured once and then replayed.

    Attributes
    ----------
    gradient : ndarray of float32, shape (23985,)
        All gradients in one vector, in the order of `network.parameters`.
    """

    def __init__(
        self,
        machine: Machine,
        optimizer: optimizers.Adam,
        inputs: NdArray,
        targets: NdArray,
        captured: bool = True,
    ) -> None:
        self._machine = machine
        self._captured = captured
        self._optimizer = optimizer
        self._data = {"inputs": inputs, "targets": targets}
        self._image = inputs.shape[2:]
        self._vectors: dict[str, NdArray] = {}
        self._views: list[tuple[Callable[[], Any], NdArray]] = []
        self._batches: dict[int, _Batch] = {}

    @property
    def gradient(self) -> NdArray:
        return self._vectors["gradient"]

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
        if not self._views or any(read() is not view for read, view in self._views):
            self._attach()
        for parameter, gradient in zip(parameters(self._optimizer.target), self._grads, strict=True):
            if parameter.grad is not gradient:
                parameter.grad = gradient
        self._batch = self._batch_of(len(indices))
        self._machine.upload(self._feed(indices), self._batch.arrays["feed"])
        self._batch.gradients()
        return self._batch.arrays["loss"].copy().reshape(())

    def update(self) -> None:
        """Let Adam update the parameters by the gradients of the batch that `gradients` was given."""
        self._optimizer.t += 1
        for parameter in parameters(self._optimizer.target):
            parameter.update_rule.t += 1
        self._batch.update()

    def _feed(self, indices: Sequence[int]) -> np.ndarray:
        """What changes from step to step: Adam's coefficients for the step to come, and the indices."""
        hyperparam = self._optimizer.hyperparam
        alpha_t = adam._learning_rate(hyperparam, self._optimizer.t + 1)
        feed = np.zeros(plan.FEED_HEADER + len(indices), np.int32)
        feed[:6].view(np.float32)[:] = (
            alpha_t, 1 - hyperparam.beta1, 1 - hyperparam.beta2,
            hyperparam.eps, hyperparam.eta, hyperparam.weight_decay_rate,
        )  # fmt: skip
        feed[plan.FEED_HEADER :] = indices
        return feed

    def _batch_of(self, size: int) -> _Batch:
        if size not in self._batches:
            shape = plan.Shape(size, *self._image)
            links = normalisations(self._optimizer.target)
            layers = tuple(plan.Normalisation(link.eps, link.decay) for link in links)
            # The first size is the one that comes again and again.
            captured = self._captured and not self._batches
            self._batches[size] = _Batch(
                self._machine, shape, layers, {**self._data, **self._vectors}, captured
            )
        return self._batches[size]

    def _attach(self) -> None:
        """Move the model's arrays into the vectors, and put views of these in their places."""
        empty, model = self._machine.empty, self._optimizer.target
        self._batches, self._views = {}, []
        self._vectors = {name: empty(plan.COUNT, np.float32) for name in ("parameters", "gradient", "m", "v")}
        pieces = {name: plan.split(vector) for name, vector in self._vectors.items()}
        self._grads = pieces["gradient"]
        for i, parameter in enumerate(parameters(model)):
            rule = parameter.update_rule
            rule._init_states(parameter)
            for name in ("m", "v"):
                pieces[name][i][...] = rule.state[name]
                rule.state[name] = pieces[name][i]
                self._views.append((lambda rule=rule, name=name: rule.state[name], pieces[name][i]))
            pieces["parameters"][i][...] = parameter.array
            parameter.array = pieces["parameters"][i]
            self._views.append((lambda parameter=parameter: parameter.array, parameter.array))
        for layer, link in enumerate(normalisations(model), 1):
            average = empty(2 * len(link.avg_mean), np.float32)
            self._vectors[f"average{layer}"] = average
            for name, view in zip(("avg_mean", "avg_var"), average.reshape(2, -1), strict=True):
                view[...] = getattr(link, name)
                setattr(link, name, view)
                self._views.append((lambda link=link, name=name: getattr(link, name), view))


class _Batch:
    """The launches for batches of one size, on buffers of their own."""

    def __init__(
        self,
        machine: Machine,
        shape: plan.Shape,
        layers: tuple[plan.Normalisation, ...],
        given: dict[str, NdArray],
        captured: bool,
    ) -> None:
        gradients = [
            *plan.batch(shape), *plan.forward(shape, layers, train=True), *plan.squared_error(shape),
            *plan.backward(shape, train=True),
        ]  # fmt: skip
        update = plan.adam()
        sizes = plan.buffers(shape)
        fresh = sorted(plan.names([*gradients, *update]) - set(given))
        self.arrays = {**given, **{name: machine.empty(*sizes[name]) for name in fresh}}
        self.gradients = _Replayed(machine, machine.bind(gradients, self.arrays), captured)
        self.update = _Replayed(machine, machine.bind(update, self.arrays), captured)


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
            _say_once(f"{NO_CAPTURE} ({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
                      "the kernels are launched one by one, slower\n")  # fmt: skip


_said: set[str] = set()


def _say_once(line: str) -> None:
    if NO_CAPTURE not in _said:
        _said.add(NO_CAPTURE)
        sys.stderr.write(line)
