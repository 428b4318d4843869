"""The network as one Chainer function: forward and backward of `CNNAE.forward` on the CPU.

The function takes the parameters as inputs and returns their gradients, so that parameters, optimiser and
graph remain Chainer's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import chainer
import numpy as np
from chainer import function_node

from srmnist.engine.cpu import layouts
from srmnist.engine.cpu.evaluation import evaluate
from srmnist.engine.cpu.geometry import evaluation_grid
from srmnist.engine.cpu.normalisation import Normalisation
from srmnist.engine.cpu.slices import for_each_block
from srmnist.engine.cpu.step import Step, sigmoid
from srmnist.engine.network import Inputs, Layer, differentiable_gradients, normalisations

SERVES_RANKS = True  # also where several processes share the statistics of batch normalisation


class Restore(function_node.FunctionNode):
    """CNNAE from its input to the sigmoid.

    Inputs are x (B, 1, H, W) and the eleven parameters in the order of `network.parameters`, all float32
    NumPy arrays. The output is (B, 1, H, W).

    Parameters
    ----------
    model : CNNAE
        Its three batch normalisations are used, and their running statistics are updated in training.
    """

    def __init__(self, model: chainer.Chain) -> None:
        super().__init__()
        self._links = normalisations(model)
        self._train = chainer.config.train
        self._step = Step(self._links, self._train)

    def apply(self, inputs: Sequence[chainer.Variable | np.ndarray]) -> tuple[chainer.Variable, ...]:
        """Compute the output; without Chainer's preparations where there is no graph and nobody watches.

        They take about as long as half a digit.
        """
        if self._keeps_graph() or chainer.is_debug() or chainer.get_function_hooks():
            return super().apply(inputs)
        return (chainer.Variable(self.forward(tuple(map(chainer.as_array, inputs)))[0], requires_grad=False),)

    def _keeps_graph(self) -> bool:
        return self._train or chainer.config.enable_backprop

    def forward(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray]:
        own = Inputs.of(inputs)
        if self._keeps_graph():
            self.retain_inputs(range(len(inputs)))
            self.retain_outputs((0,))
            return (self._step.forward(own),)
        x, z = layouts.for_numba(own.x[:, 0]), np.empty(own.x[:, 0].shape, np.float32)
        self._evaluate(x, own, z)
        return (sigmoid(z).reshape(own.x.shape),)

    def _evaluate(self, x: np.ndarray, own: Inputs, z: np.ndarray) -> None:
        """Compute `z`, the input of the sigmoid, with the running statistics; keep nothing."""
        for_each_block(evaluate, evaluation_grid(*x.shape[1:]), (x, z), self._fixed(own))

    def _fixed(self, own: Inputs) -> _Fixed:
        """What evaluation takes beside the images.

        One image takes less time than to transform the weights, so those of the last evaluation are kept.
        """
        global _last
        arrays = [
            *own.flat()[1:],
            *(array for link in self._links for array in (link.avg_mean, link.avg_var)),
        ]
        key = b"".join(map(np.ndarray.tobytes, arrays)), tuple(link.eps for link in self._links)
        last = _last
        if last is None or last[0] != key:
            first, second, third = (layer.w for layer in own.layers)
            fixed = _Fixed(
                np.concatenate([self._running(i, layer).rows.ravel() for i, layer in enumerate(own.layers)]),
                layouts.taps(first),
                layouts.transformed_forward(second),
                layouts.transformed_forward(third),
                layouts.taps(own.w4),
                own.bias.copy(),
            )
            _last = last = key, fixed
        return last[1]

    def _running(self, i: int, layer: Layer) -> Normalisation:
        return Normalisation.running(self._links[i], layer.gamma, layer.beta)

    def backward(
        self, indexes: tuple[int, ...], grad_outputs: tuple[chainer.Variable, ...]
    ) -> list[chainer.Variable] | tuple[chainer.Variable, ...]:
        inputs = self.get_retained_inputs()
        if chainer.config.enable_backprop:
            return differentiable_gradients(self._links, self._train, inputs, indexes, grad_outputs)
        own = Inputs.of([variable.array for variable in inputs])
        y = self.get_retained_outputs()[0].array
        gy = np.asarray(grad_outputs[0].array)
        gradients = self._step.gradients(own, y, gy, 0 in indexes).flat()
        return tuple(chainer.Variable(np.ascontiguousarray(gradients[i])) for i in indexes)


class _Fixed(NamedTuple):
    """The constants of `evaluation.evaluate`, in its order."""

    normalisations: np.ndarray
    w1: np.ndarray
    u2: np.ndarray
    u3: np.ndarray
    w4: np.ndarray
    bias: np.ndarray


# The arrays that the last evaluation's constants follow from, as bytes, and the constants.
_last: tuple[Any, _Fixed] | None = None


def holds(array: object) -> bool:
    """Whether an array is of a type that this engine can take."""
    return type(array) is np.ndarray
