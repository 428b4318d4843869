"""A training step of the network: its passes forward, and from the gradient of its output backward."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import chainer
import numpy as np

from srmnist.engine.cpu import layouts, memory, passes
from srmnist.engine.cpu.geometry import C1, C2, C3, POSITIONS, Grid, training_grid
from srmnist.engine.cpu.normalisation import Gradient, Normalisation
from srmnist.engine.cpu.slices import for_each_block, summed_slices
from srmnist.engine.network import Inputs, Layer

# Training needs the memory of one batch; the second serves graphs that use the model twice.
_batches = memory.Pool(keep=2)


class Step:
    """One step. `forward` keeps what `gradients` needs.

    Parameters
    ----------
    links : sequence of Link
        The model's three batch normalisations.
    train : bool
        Whether they take the statistics of the batch, and update the running ones; or the running ones.
    """

    def __init__(self, links: Sequence[chainer.Link], train: bool) -> None:
        self._links = links
        self._train = train

    def forward(self, own: Inputs) -> np.ndarray:
        """The output of the network, (B, 1, H, W), from x and the parameters."""
        x = layouts.for_numba(own.x[:, 0])
        z = np.empty(x.shape, np.float32)
        self._grid = training_grid(*x.shape[1:])
        self._batch = _Batch.of(x.shape, self._grid)
        first, *others = own.layers
        a = self._batch.activations
        sums = self._sums(0, 3)
        self._compute(passes.forward_first, (x, a[0], sums), (layouts.taps(first.w),))
        self._normalisations = [self._normalisation(0, sums, first)]
        self._transposed = {}
        for i, layer in enumerate(others, 1):
            u, self._transposed[i] = layouts.transformed(layer.w)
            sums = self._sums(i, 3)
            before = self._normalisations[-1].rows
            self._compute(passes.forward_middle, (a[i - 1], a[i], sums), (before, u))
            self._normalisations.append(self._normalisation(i, sums, layer))
        last = (self._normalisations[-1].rows, layouts.taps(own.w4), layouts.for_numba(own.bias))
        self._compute(passes.forward_last, (a[2], z), last)
        return sigmoid(z).reshape(own.x.shape)

    def _normalisation(self, i: int, sums: np.ndarray, layer: Layer) -> Normalisation:
        if not self._train:
            return Normalisation.running(self._links[i], layer.gamma, layer.beta)
        return Normalisation.of_batch(self._links[i], sums, self._grid.pixels, layer.gamma, layer.beta)

    def _compute(
        self,
        compute: Callable[..., None],
        images: Sequence[np.ndarray],
        constants: Sequence[np.ndarray],
        sums: np.ndarray | None = None,
    ) -> None:
        """Let one of `passes` compute the batch."""
        for_each_block(compute, self._grid, images, constants, sums)

    def _sums(self, i: int, count: int) -> np.ndarray:
        """Memory for so many sums over each block and channel of a layer's output: (B · blocks, count, C)."""
        a = self._batch.activations[i]
        return np.empty((len(a) * len(self._grid.blocks), count, a.shape[-1]), np.float32)

    def gradients(self, own: Inputs, y: np.ndarray, gy: np.ndarray, of_images: bool = False) -> Inputs:
        """The gradients of all inputs, layer by layer from the last.

        Parameters
        ----------
        own : Inputs
            As for `forward`.
        y, gy : ndarray of float32, shape (B, 1, H, W)
            The output, and its gradient.
        of_images : bool, default False
            Whether the gradient of x is wanted; without, it is None.
        """
        x, gz = (layouts.for_numba(images[:, 0]) for images in (own.x, gy * y * (1 - y)))
        a, g, du = self._batch.activations, self._batch.gradients, self._batch.weight_gradients
        slices = summed_slices(len(x) * len(self._grid.blocks))
        flipped = layouts.flipped_taps(own.w4)
        n1, n2, n3 = (normalisation.rows for normalisation in self._normalisations)

        sums, dw4 = self._sums(2, 2), np.empty((slices, 9, C3), np.float32)
        self._compute(passes.backward_last, (gz, a[2], sums), (flipped, n3), dw4)
        third = self._normalisation_gradient(2, sums)

        sums = self._sums(1, 2)
        fixed = [flipped, third.norm, self._transposed[2], n2]
        self._compute(passes.backward_third, (gz, a[2], a[1], g[1], sums), fixed, du[1])
        second = self._normalisation_gradient(1, sums)

        sums = self._sums(0, 2)
        fixed = [second.norm, self._transposed[1], n1]
        self._compute(passes.backward_second, (g[1], a[1], a[0], g[0], sums), fixed, du[0])
        first = self._normalisation_gradient(0, sums)

        dw1 = np.empty((slices, 9, C1), np.float32)
        self._compute(passes.backward_first, (x, g[0], a[0]), (first.norm,), dw1)
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
        self._compute(passes.input_gradient, images, fixed)
        return gx.reshape(own.x.shape)

    def _normalisation_gradient(self, i: int, sums: np.ndarray) -> Gradient:
        count = math.prod(self._batch.activations[i].shape[:3])
        return self._normalisations[i].gradient(sums, count, self._links[i], self._train)


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
    def of(cls, shape: tuple[int, int, int], grid: Grid) -> _Batch:
        slices = summed_slices(shape[0] * len(grid.blocks))
        shapes: list[tuple[int, ...]] = [(*shape, channels) for channels in (C1, C2, C3, C1, C2)]
        shapes += [(slices, POSITIONS, C1 * C2), (slices, POSITIONS, C2 * C3)]
        arrays = _batches.arrays(shapes)
        return cls(arrays[:3], arrays[3:5], arrays[5:])


def sigmoid(z: np.ndarray) -> np.ndarray:
    """The sigmoid by tanh, as ``chainer.functions.sigmoid`` computes it on the CPU; it overwrites `z`."""
    half = np.float32(0.5)
    z *= half
    np.tanh(z, out=z)
    z *= half
    z += half
    return z
