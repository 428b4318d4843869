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

from srmnist.engine.cpu import layouts, memory, passes
from srmnist.engine.cpu.geometry import C1, C2, C3, POSITIONS
from srmnist.engine.cpu.normalisation import Gradient, Normalisation
from srmnist.engine.cpu.slices import for_each_block, for_each_slice, summed_slices
from srmnist.engine.network import Inputs, Layer, differentiable_gradients, normalisations

SERVES_RANKS = True  # also where several processes share the statistics of batch normalisation

# Training needs the memory of one batch; the second serves graphs that use the model twice.
_batches = memory.Pool(keep=2)


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
        x, z = layouts.for_numba(own.x[:, 0]), np.empty(own.x[:, 0].shape, np.float32)
        if self._keeps_graph():
            self.retain_inputs(range(len(inputs)))
            self.retain_outputs((0,))
            self._convolve(x, own, z)
        else:
            self._evaluate(x, own, z)
        return (_sigmoid(z).reshape(own.x.shape),)

    def _evaluate(self, x: np.ndarray, own: Inputs, z: np.ndarray) -> None:
        """Compute `z`, the input of the sigmoid, with the running statistics; keep nothing."""
        for_each_block(passes.evaluate, x, z, self._fixed(own))

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

    def _convolve(self, x: np.ndarray, own: Inputs, z: np.ndarray) -> None:
        """Compute `z`, the input of the sigmoid, and keep what the backward passes need."""
        self._batch = _Batch.of(x.shape)
        first, *others = own.layers
        a = self._batch.activations
        sums = _sums(a[0], 3)
        for_each_slice(passes.forward_first, (x, a[0], sums), (layouts.taps(first.w),))
        self._normalisations = [self._normalisation(0, sums, first)]
        self._transposed = {}
        for i, layer in enumerate(others, 1):
            u, self._transposed[i] = layouts.transformed(layer.w)
            sums = _sums(a[i], 3)
            before = self._normalisations[-1].rows
            for_each_slice(passes.forward_middle, (a[i - 1], a[i], sums), (before, u))
            self._normalisations.append(self._normalisation(i, sums, layer))
        last = (self._normalisations[-1].rows, layouts.taps(own.w4), layouts.for_numba(own.bias))
        for_each_slice(passes.forward_last, (a[2], z), last)

    def _normalisation(self, i: int, sums: np.ndarray, layer: Layer) -> Normalisation:
        if not self._train:
            return self._running(i, layer)
        _, height, width, _ = self._batch.activations[i].shape
        return Normalisation.of_batch(self._links[i], sums, height * width, layer.gamma, layer.beta)

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
        gradients = self._gradients(own, y, gy, 0 in indexes).flat()
        return tuple(chainer.Variable(np.ascontiguousarray(gradients[i])) for i in indexes)

    def _gradients(self, own: Inputs, y: np.ndarray, gy: np.ndarray, of_images: bool) -> Inputs:
        """The gradients of all inputs, layer by layer from the last; of the images if they are wanted."""
        x, gz = (layouts.for_numba(images[:, 0]) for images in (own.x, gy * y * (1 - y)))
        a, g, du = self._batch.activations, self._batch.gradients, self._batch.weight_gradients
        slices = summed_slices(len(x))
        flipped = layouts.flipped_taps(own.w4)
        n1, n2, n3 = (normalisation.rows for normalisation in self._normalisations)

        sums, dw4 = _sums(a[2], 2), np.empty((slices, 9, C3), np.float32)
        for_each_slice(passes.backward_last, (gz, a[2], sums), (flipped, n3), dw4)
        third = self._normalisation_gradient(2, sums)

        sums = _sums(a[1], 2)
        fixed = [flipped, third.norm, self._transposed[2], n2]
        for_each_slice(passes.backward_third, (gz, a[2], a[1], g[1], sums), fixed, du[1])
        second = self._normalisation_gradient(1, sums)

        sums = _sums(a[0], 2)
        fixed = [second.norm, self._transposed[1], n1]
        for_each_slice(passes.backward_second, (g[1], a[1], a[0], g[0], sums), fixed, du[0])
        first = self._normalisation_gradient(0, sums)

        dw1 = np.empty((slices, 9, C1), np.float32)
        for_each_slice(passes.backward_first, (x, g[0], a[0]), (first.norm,), dw1)
        layers = (
            Layer(dw1.sum(axis=0).T.reshape(C1, 1, 3, 3), first.gamma, first.beta),
            Layer(layouts.weight_gradient(du[0], C1, C2), second.gamma, second.beta),
            Layer(layouts.weight_gradient(du[1], C2, C3), third.gamma, third.beta),
        )
        w4, bias = dw4.sum(axis=0)[::-1].T.reshape(1, C3, 3, 3), gz.sum().reshape(1)
        return Inputs(self._image_gradient(own, first) if of_images else None, layers, w4, bias)

    def _image_gradient(self, own: Inputs, first: Gradient) -> np.ndarray:
        """The gradient of x, from that of the first layer's normalisation."""
        gx = np.empty(own.x[:, 0].shape, np.float32)
        images = (self._batch.gradients[0], self._batch.activations[0], gx)
        fixed = (first.norm, layouts.flipped_taps(own.layers[0].w))
        for_each_slice(passes.input_gradient, images, fixed)
        return gx.reshape(own.x.shape)

    def _normalisation_gradient(self, i: int, sums: np.ndarray) -> Gradient:
        _, height, width, _ = self._batch.activations[i].shape
        return self._normalisations[i].gradient(sums, height * width, self._links[i], self._train)


class _Fixed(NamedTuple):
    """The constants of `passes.evaluate`, in its order."""

    normalisations: np.ndarray
    w1: np.ndarray
    u2: np.ndarray
    u3: np.ndarray
    w4: np.ndarray
    bias: np.ndarray


# The arrays that the last evaluation's constants follow from, as bytes, and the constants.
_last: tuple[Any, _Fixed] | None = None


class _Batch(NamedTuple):
    """The large arrays of a training step, all in one block of the pool.

    Attributes
    ----------
    activations : list of ndarray, (B, H, W, 16), (B, H, W, 32) and (B, H, W, 64)
        The outputs of conv1, conv2 and conv3.
    gradients : list of ndarray, (B, H, W, 16) and (B, H, W, 32)
        The gradients of the inputs of the first two ReLUs.
    weight_gradients : list of ndarray, (slices, 36, 16 · 32) and (slices, 36, 32 · 64)
        The gradients of the transformed weights of conv2 and conv3.
    """

    activations: list[np.ndarray]
    gradients: list[np.ndarray]
    weight_gradients: list[np.ndarray]

    @classmethod
    def of(cls, shape: tuple[int, int, int]) -> _Batch:
        slices = summed_slices(shape[0])
        shapes: list[tuple[int, ...]] = [(*shape, channels) for channels in (C1, C2, C3, C1, C2)]
        shapes += [(slices, POSITIONS, C1 * C2), (slices, POSITIONS, C2 * C3)]
        arrays = _batches.arrays(shapes)
        return cls(arrays[:3], arrays[3:5], arrays[5:])


def holds(array: object) -> bool:
    """Whether an array is of a type that this engine can take."""
    return type(array) is np.ndarray


def _sums(activations: np.ndarray, count: int) -> np.ndarray:
    """Memory for so many sums over each image and channel: (B, count, C)."""
    return np.empty((len(activations), count, activations.shape[-1]), np.float32)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    """The sigmoid by tanh, as ``chainer.functions.sigmoid`` computes it on the CPU; it overwrites `z`."""
    half = np.float32(0.5)
    z *= half
    np.tanh(z, out=z)
    z *= half
    z += half
    return z
