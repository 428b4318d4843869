"""The network as one Chainer function: forward and backward of `CNNAE.forward` on the CPU.

Everything that is Chainer's stays Chainer's: the function takes the parameters as inputs and returns their
gradients, and updates the running statistics by the formulas of ``chainer.functions.batch_normalization``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import chainer
import numpy as np
from chainer import function_node

from srmnist.engine.cpu import memory, passes
from srmnist.engine.cpu.passes import C1, C2, C3
from srmnist.engine.cpu.threads import share, thread_count
from srmnist.engine.cpu.winograd import POSITIONS, panel_width
from srmnist.engine.network import differentiable_gradients, is_shared, normalisations

_CHANNELS = (C1, C2, C3)
_NO_IMAGE = np.empty(0, np.float32)
# Slices of a batch, at least. More balance the threads better, but each sums weight gradients of its own.
_PARTS = 8

SERVES_RANKS = True  # where several processes share the statistics of batch normalisation


class Restore(function_node.FunctionNode):
    """CNNAE from its input to the sigmoid.

    Inputs are x (B, 1, H, W) and the eleven parameters in the order of `parameters`, all float32 NumPy
    arrays; the output is (B, 1, H, W).
    """

    def __init__(self, model: chainer.Chain) -> None:
        super().__init__()
        self._links = normalisations(model)
        self._train = chainer.config.train

    def forward(self, inputs):
        x, w1, gamma1, beta1, w2, gamma2, beta2, w3, gamma3, beta3, w4, bias = inputs
        if not (self._train or chainer.config.enable_backprop):
            return (self._evaluate(inputs),)
        self.retain_inputs(range(len(inputs)))
        self.retain_outputs((0,))
        batch, _, height, width = x.shape
        pixels = height * width
        self._parts = _parts(batch)
        self._buffers = memory.pool.take(batch * pixels, self._parts)
        a1, a2, a3 = self._buffers.activations
        flat, z = np.ascontiguousarray(x).ravel(), np.empty(x.size, np.float32)
        sums = np.empty(3 * batch * C3, np.float32)

        taps = _taps(w1)
        _each_slice(x.shape, self._parts, lambda part, *slice_: passes.forward_first(
            flat, height, width, taps, a1, sums, *slice_))  # fmt: skip
        n1 = self._normalise(0, sums, batch, pixels, gamma1, beta1)
        self._transposed2, u2 = _transformed(w2)
        _each_slice(x.shape, self._parts, lambda part, *slice_: passes.forward_middle(
            a1, height, width, C1, C2, n1.scale, n1.shift, u2, a2, sums, *slice_))  # fmt: skip
        n2 = self._normalise(1, sums, batch, pixels, gamma2, beta2)
        self._transposed3, u3 = _transformed(w3)
        _each_slice(x.shape, self._parts, lambda part, *slice_: passes.forward_middle(
            a2, height, width, C2, C3, n2.scale, n2.shift, u3, a3, sums, *slice_))  # fmt: skip
        n3 = self._normalise(2, sums, batch, pixels, gamma3, beta3)
        taps = _taps(w4)
        _each_slice(x.shape, self._parts, lambda part, *slice_: passes.forward_last(
            a3, height, width, n3.scale, n3.shift, taps, bias[0], z, *slice_))  # fmt: skip
        self._normalisations = (n1, n2, n3)
        return (_sigmoid(z).reshape(x.shape),)

    def _evaluate(self, inputs):
        x, w1, gamma1, beta1, w2, gamma2, beta2, w3, gamma3, beta3, w4, bias = inputs
        parameters_ = zip(self._links, (gamma1, gamma2, gamma3), (beta1, beta2, beta3), strict=True)
        fixed = [Normalisation.fixed(*layer) for layer in parameters_]
        scale, shift = (np.concatenate([getattr(n, part) for n in fixed]) for part in ("scale", "shift"))
        _, _, height, width = x.shape
        flat, z = np.ascontiguousarray(x).ravel(), np.empty(x.size, np.float32)
        weights = _taps(w1), _transformed(w2)[1], _transformed(w3)[1], _taps(w4)
        _each_slice(x.shape, _parts(len(x)), lambda part, *slice_: passes.evaluate(
            flat, height, width, *weights, bias[0], scale, shift, z, *slice_))  # fmt: skip
        return _sigmoid(z).reshape(x.shape)

    def _normalise(self, layer, sums, batch, pixels, gamma, beta) -> Normalisation:
        """This layer's normalisation, from the batch's statistics or the running ones."""
        link = self._links[layer]
        if not self._train:
            return Normalisation.fixed(link, gamma, beta)
        mean, variance = _moments(sums, batch, pixels, _CHANNELS[layer])
        count = batch * pixels
        if is_shared(link):
            mean, squares = _over_ranks(link, np.stack([mean, variance + mean**2]))
            variance = np.maximum(squares - mean**2, 0)
            count *= link.comm.size
        if not chainer.config.in_recomputing:
            link.avg_mean *= link.decay
            link.avg_mean += (1 - link.decay) * mean.astype(np.float32)
            link.avg_var *= link.decay
            link.avg_var += (1 - link.decay) * (count / max(count - 1, 1)) * variance.astype(np.float32)
        return Normalisation.of(mean, variance, gamma, beta, link.eps)

    def backward(self, indexes, grad_outputs):
        if chainer.config.enable_backprop:
            inputs = self.get_retained_inputs()
            return differentiable_gradients(self._links, self._train, inputs, indexes, grad_outputs)
        x, w1, _, _, _, _, _, _, _, _, w4, _ = (v.array for v in self.get_retained_inputs())
        y = self.get_retained_outputs()[0].array
        gy = grad_outputs[0].array
        gz = (gy * y * (1 - y)).ravel()
        batch, _, height, width = x.shape
        count = batch * height * width
        a1, a2, a3 = self._buffers.activations
        g1, g2 = self._buffers.gradients
        n1, n2, n3 = self._normalisations
        sums = np.empty(2 * batch * C3, np.float32)
        parts = self._parts
        dw1, dw4 = np.empty((parts, 9 * C1), np.float32), np.empty((parts, 9 * C3), np.float32)
        du2, du3 = (du[:parts] for du in self._buffers.weight_gradients)
        flat = np.ascontiguousarray(x).ravel()
        gx = np.empty(x.size, np.float32) if 0 in indexes else _NO_IMAGE

        taps, norm = _taps(w4)[::-1].ravel(), n3.forward()
        _each_slice(x.shape, self._parts, lambda part, *slice_: passes.backward_last(
            gz, a3, height, width, taps, norm, n3.mean, dw4[part], sums, *slice_))  # fmt: skip
        c3, ggamma3, gbeta3 = n3.backward(sums, batch, count, self._links[2], self._train)
        norm2 = n2.forward()
        _each_slice(x.shape, self._parts, lambda part, *slice_: passes.backward_middle(
            gz, taps, a3, a2, height, width, C2, C3, c3, self._transposed3, norm2, n2.mean,
            du3[part], g2, sums, *slice_))  # fmt: skip
        c2, ggamma2, gbeta2 = n2.backward(sums, batch, count, self._links[1], self._train)
        norm1 = n1.forward()
        _each_slice(x.shape, self._parts, lambda part, *slice_: passes.backward_middle(
            g2, _NO_IMAGE, a2, a1, height, width, C1, C2, c2, self._transposed2, norm1, n1.mean,
            du2[part], g1, sums, *slice_))  # fmt: skip
        c1, ggamma1, gbeta1 = n1.backward(sums, batch, count, self._links[0], self._train)
        flipped = _taps(w1)[::-1].ravel()
        _each_slice(x.shape, self._parts, lambda part, *slice_: passes.backward_first(
            g1, a1, flat, height, width, c1, dw1[part], flipped, gx, *slice_))  # fmt: skip

        gradients = (
            gx.reshape(x.shape) if 0 in indexes else None,
            dw1.sum(axis=0).reshape(9, C1).T.reshape(C1, 1, 3, 3), ggamma1, gbeta1,
            _weight_gradient(du2, C1, C2), ggamma2, gbeta2,
            _weight_gradient(du3, C2, C3), ggamma3, gbeta3,
            dw4.sum(axis=0).reshape(9, C3)[::-1].T.reshape(1, C3, 3, 3), gz.sum(keepdims=True),
        )  # fmt: skip
        return tuple(
            None if gradients[i] is None else chainer.Variable(np.ascontiguousarray(gradients[i]))
            for i in indexes
        )


class Normalisation(NamedTuple):
    """A batch normalisation: what it multiplies with and adds, and what it was made of."""

    scale: np.ndarray
    shift: np.ndarray
    mean: np.ndarray
    inverse_std: np.ndarray

    @classmethod
    def of(cls, mean, variance, gamma, beta, eps) -> Normalisation:
        inverse_std = 1 / np.sqrt(variance.astype(np.float64) + eps)
        scale = gamma * inverse_std
        parts = (scale, beta - mean * scale, mean, inverse_std)
        return cls(*(part.astype(np.float32) for part in parts))

    @classmethod
    def fixed(cls, link, gamma, beta) -> Normalisation:
        return cls.of(link.avg_mean, link.avg_var, gamma, beta, link.eps)

    def forward(self) -> np.ndarray:
        """The coefficients `kernels.convolve_gradient` calls norm, where only the last two matter."""
        zero = np.zeros_like(self.scale)
        return np.concatenate([zero, zero, zero, self.scale, self.shift])

    def backward(self, sums, batch, count, link, train) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """norm of `kernels.convolve_gradient`, and the gradients of gamma and beta.

        S. Ioffe and C. Szegedy, "Batch Normalization", 2015, section 3: with x̂ = (a − mean) / std, the
        gradient is scale · (g − Σ g / n − x̂ · Σ g x̂ / n), which is linear in g and a.
        """
        channels = len(self.scale)
        per_image = sums[: 2 * batch * channels].reshape(batch, 2, channels)
        gbeta, projection = per_image.sum(axis=0, dtype=np.float64)
        if train and is_shared(link):
            gbeta, projection = _over_ranks(link, np.stack([gbeta, projection]))
        ggamma = projection * self.inverse_std
        by_g = self.scale.astype(np.float64)
        by_a = -by_g * self.inverse_std * ggamma / count if train else 0 * by_g
        constant = -by_g * gbeta / count - by_a * self.mean if train else 0 * by_g
        norm = np.concatenate([by_g, by_a, constant, self.scale, self.shift]).astype(np.float32)
        return norm, ggamma.astype(np.float32), gbeta.astype(np.float32)


def holds(array: object) -> bool:
    """Whether an array is one that this engine can take."""
    return type(array) is np.ndarray


def _over_ranks(link: chainer.Link, values: np.ndarray) -> np.ndarray:
    """The mean over ranks, all of which have batches of the same size."""
    return link.comm.allreduce(values) / link.comm.size


def _parts(batch: int) -> int:
    """Slices of a batch: the same number, and so the same rounding, for up to four threads."""
    return min(batch, max(_PARTS, 2 * thread_count()))


def _each_slice(shape: tuple[int, ...], parts: int, run: Callable[..., None]) -> None:
    """Call ``run(part, scratch, begin, end)`` for each slice of a batch of this shape, on all threads."""
    batch, _, height, width = shape
    with memory.lock:
        scratch = memory.scratch.take(height, width)
        share(
            lambda worker, part: run(
                part, scratch[worker], batch * part // parts, batch * (part + 1) // parts
            ),
            parts,
        )


def _moments(sums: np.ndarray, batch: int, pixels: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance over a batch, (channels,) float64, from `kernels.statistics` of its images."""
    k, s, q = sums[: 3 * batch * channels].reshape(batch, 3, channels).swapaxes(0, 1).astype(np.float64)
    means = k + s / pixels
    mean = means.mean(axis=0)
    squares = q - s * s / pixels + pixels * (means - mean) ** 2
    return mean, np.maximum(squares.sum(axis=0), 0) / (batch * pixels)


def _taps(w: np.ndarray) -> np.ndarray:
    """Weights of a convolution from or to one channel, as (9, channels)."""
    return np.ascontiguousarray(w.reshape(-1, 9).T)


def _transformed(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Winograd's transform of weights, flat: for gradients (36, outputs, inputs), and (36, inputs, outputs).

    Both with their columns in panels, see `winograd.panel_width`.
    """
    outputs, inputs = w.shape[:2]
    u = np.empty((POSITIONS, outputs, inputs), np.float32)
    passes.transform_weights(w.ravel(), outputs * inputs, u.ravel())
    return tuple(
        matrix.reshape(POSITIONS, rows, -1, panel_width(columns)).swapaxes(1, 2).ravel()
        for matrix, rows, columns in ((u, outputs, inputs), (u.swapaxes(1, 2), inputs, outputs))
    )


def _weight_gradient(du: np.ndarray, inputs: int, outputs: int) -> np.ndarray:
    """The gradient of weights (outputs, inputs, 3, 3) from the slices' shares of their transform's."""
    dw = np.empty((9, outputs // panel_width(outputs), inputs, panel_width(outputs)), np.float32)
    passes.transform_weight_gradient(du.ravel(), len(du), inputs * outputs, dw.ravel())
    return dw.transpose(1, 3, 2, 0).reshape(outputs, inputs, 3, 3)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    """By tanh, as ``chainer.functions.sigmoid`` computes it on the CPU."""
    half = np.float32(0.5)
    return np.tanh(z * half) * half + half
