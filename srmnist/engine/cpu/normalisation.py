"""Batch normalisation, as one multiplication and one addition for each channel, and its gradient.

S. Ioffe and C. Szegedy, "Batch Normalization", 2015, arXiv:1502.03167. All sums over the batch are float64.
They are compiled: with NumPy the six of a step would take as long as the passes of a batch of one image.
"""

from __future__ import annotations

from typing import NamedTuple

import chainer
import numpy as np

from srmnist.engine.cpu.compiled import compiled
from srmnist.engine.cpu.layouts import for_numba
from srmnist.engine.network import is_shared


class Gradient(NamedTuple):
    """The gradient of a normalisation and the ReLU after it.

    ``norm`` (5, C) are the factors with which `kernels.convolve_gradient` computes the gradient of the input;
    ``gamma`` and ``beta`` (C,) are the gradients of the parameters.
    """

    norm: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray


class Normalisation:
    """A layer's batch normalisation with fixed mean and variance.

    Parameters
    ----------
    mean, variance : ndarray, (C,)
    gamma, beta : ndarray, (C,)
        The layer's parameters.
    eps : float
        Is added to the variance.

    Attributes
    ----------
    rows : ndarray, (3, C), float32
        The factor and the summand that normalise the input, and the mean.
    """

    def __init__(
        self, mean: np.ndarray, variance: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float
    ) -> None:
        self.rows, self._inverse_std = np.empty((3, len(gamma)), np.float32), np.empty(len(gamma), np.float32)
        own = map(for_numba, (gamma, beta))
        _normalise(np.array([mean, variance], np.float64), *own, float(eps), self.rows, self._inverse_std)

    @classmethod
    def running(cls, link: chainer.Link, gamma: np.ndarray, beta: np.ndarray) -> Normalisation:
        """The normalisation with a layer's running statistics."""
        return cls(link.avg_mean, link.avg_var, gamma, beta, link.eps)

    @classmethod
    def of_batch(
        cls, link: chainer.Link, sums: np.ndarray, pixels: np.ndarray, gamma: np.ndarray, beta: np.ndarray
    ) -> Normalisation:
        """The normalisation with a batch's own statistics; it also updates the running statistics.

        Parameters
        ----------
        link : chainer.links.BatchNormalization
        sums : ndarray, (B · blocks, 3, C), float32
            The `kernels.statistics` of each block of each image.
        pixels : ndarray, (blocks,)
            Number of pixels in each of an image's blocks.
        gamma, beta : ndarray, (C,)
        """
        moments = np.zeros((2, len(gamma)))
        count = _take_moments(sums, pixels, moments)
        mean, variance = moments
        if is_shared(link):
            mean, squares = _mean_over_ranks(link, np.stack([mean, variance + mean**2]))
            variance = np.maximum(squares - mean**2, 0)
            count *= link.comm.size
        if not chainer.config.in_recomputing:
            _update_running(link, mean, variance, count / max(count - 1, 1))
        return cls(mean, variance, gamma, beta, link.eps)

    def gradient(self, sums: np.ndarray, count: int, link: chainer.Link, train: bool) -> Gradient:
        """The gradient, from sums over parts of the batch.

        With x̂ = (a − mean) / std, the gradient of the input is scale · (g − Σ g / n − x̂ · Σ g x̂ / n),
        section 3 of the paper. It is linear in g and a. If the statistics are not the batch's own, it is
        scale · g.

        Parameters
        ----------
        sums : ndarray, (parts, 2, C), float32
            Of each part, Σ g and Σ g · (a − mean), as `kernels.gradient_statistics` takes them.
        count : int
            Number of pixels in the batch.
        link : chainer.links.BatchNormalization
        train : bool
            Whether the statistics are the batch's own.
        """
        totals = np.zeros((2, sums.shape[2]))
        _add_parts(sums, totals)
        if train and is_shared(link):
            totals = _mean_over_ranks(link, totals)
        norm, parameters = (np.empty((rows, sums.shape[2]), np.float32) for rows in (5, 2))
        _differentiate(totals, count, train, self.rows, self._inverse_std, norm, parameters)
        return Gradient(norm, *parameters)


@compiled
def _take_moments(sums, pixels, moments):
    """Add mean and variance over a batch to `moments` (2, C); return the number of its pixels.

    `sums` and `pixels` are those of `Normalisation.of_batch`.
    """
    parts, _, channels = sums.shape
    mean, variance = moments
    count = 0
    for i in range(parts):
        size = pixels[i % len(pixels)]
        count += size
        share = size / pixels[0]  # 1 where all blocks are alike: it costs no rounding
        for c in range(channels):
            mean[c] += share * (np.float64(sums[i, 0, c]) + np.float64(sums[i, 1, c]) / size)
    for c in range(channels):
        mean[c] /= count / pixels[0]
    for i in range(parts):
        size = pixels[i % len(pixels)]
        for c in range(channels):
            k, s, q = np.float64(sums[i, 0, c]), np.float64(sums[i, 1, c]), np.float64(sums[i, 2, c])
            deviation = k + s / size - mean[c]
            variance[c] += q - s * s / size + size * (deviation * deviation)
    for c in range(channels):
        if variance[c] < 0:  # by rounding
            variance[c] = 0
        variance[c] /= count
    return count


@compiled
def _normalise(moments, gamma, beta, eps, rows, inverse_std):
    """`Normalisation.rows` and the factors 1 / std, from mean and variance (2, C)."""
    for c in range(len(gamma)):
        inverse = 1 / np.sqrt(moments[1, c] + eps)
        scale = gamma[c] * inverse
        rows[0, c], rows[1, c], rows[2, c] = scale, beta[c] - moments[0, c] * scale, moments[0, c]
        inverse_std[c] = inverse


@compiled
def _add_parts(sums, totals):
    """Add the sums of each part of a batch, (parts, 2, C), to `totals` (2, C)."""
    parts, rows, channels = sums.shape
    for i in range(parts):
        for row in range(rows):
            for c in range(channels):
                totals[row, c] += sums[i, row, c]


@compiled
def _differentiate(totals, count, train, rows, inverse_std, norm, parameters):
    """`Gradient.norm` and the gradients of gamma and beta, `parameters` (2, C), for `count` pixels."""
    for c in range(len(inverse_std)):
        by_g, inverse, mean = np.float64(rows[0, c]), np.float64(inverse_std[c]), np.float64(rows[2, c])
        beta, gamma = totals[0, c], totals[1, c] * inverse
        by_a = constant = 0 * by_g
        if train:
            by_a = -by_g * inverse * gamma / count
            constant = -by_g * beta / count - by_a * mean
        norm[0, c], norm[1, c], norm[2, c] = by_g, by_a, constant
        norm[3, c], norm[4, c] = rows[0, c], rows[1, c]
        parameters[0, c], parameters[1, c] = gamma, beta


def _update_running(link: chainer.Link, mean: np.ndarray, variance: np.ndarray, unbiased: float) -> None:
    """Update a layer's running statistics as ``chainer.functions.batch_normalization`` does.

    `unbiased` is the factor that makes the variance unbiased.
    """
    link.avg_mean *= link.decay
    link.avg_mean += (1 - link.decay) * mean.astype(np.float32)
    link.avg_var *= link.decay
    link.avg_var += (1 - link.decay) * unbiased * variance.astype(np.float32)


def _mean_over_ranks(link: chainer.Link, values: np.ndarray) -> np.ndarray:
    """The mean over the ranks. All ranks have batches of the same size."""
    return link.comm.allreduce(values) / link.comm.size
