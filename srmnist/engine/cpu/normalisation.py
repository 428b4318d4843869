"""Batch normalisation, as one multiplication and one addition for each channel, and its gradient.

S. Ioffe and C. Szegedy, "Batch Normalization", 2015, arXiv:1502.03167. All sums over the batch are float64.
"""

from __future__ import annotations

from typing import NamedTuple

import chainer
import numpy as np

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
        inverse_std = 1 / np.sqrt(variance.astype(np.float64) + eps)
        scale = gamma * inverse_std
        self.rows = np.stack([scale, beta - mean * scale, mean]).astype(np.float32)
        self._inverse_std = inverse_std.astype(np.float32)

    @classmethod
    def running(cls, link: chainer.Link, gamma: np.ndarray, beta: np.ndarray) -> Normalisation:
        """The normalisation with a layer's running statistics."""
        return cls(link.avg_mean, link.avg_var, gamma, beta, link.eps)

    @classmethod
    def of_batch(
        cls, link: chainer.Link, sums: np.ndarray, pixels: int, gamma: np.ndarray, beta: np.ndarray
    ) -> Normalisation:
        """The normalisation with a batch's own statistics; it also updates the running statistics.

        Parameters
        ----------
        link : chainer.links.BatchNormalization
        sums : ndarray, (B, 3, C), float32
            Each image's `kernels.statistics`.
        pixels : int
            Number of pixels in an image.
        gamma, beta : ndarray, (C,)
        """
        mean, variance = _moments(sums, pixels)
        count = len(sums) * pixels
        if is_shared(link):
            mean, squares = _mean_over_ranks(link, np.stack([mean, variance + mean**2]))
            variance = np.maximum(squares - mean**2, 0)
            count *= link.comm.size
        if not chainer.config.in_recomputing:
            _update_running(link, mean, variance, count / max(count - 1, 1))
        return cls(mean, variance, gamma, beta, link.eps)

    def gradient(self, sums: np.ndarray, pixels: int, link: chainer.Link, train: bool) -> Gradient:
        """The gradient, from sums over each image.

        With x̂ = (a − mean) / std, the gradient of the input is scale · (g − Σ g / n − x̂ · Σ g x̂ / n),
        section 3 of the paper. It is linear in g and a. If the statistics are not the batch's own, it is
        scale · g.

        Parameters
        ----------
        sums : ndarray, (B, 2, C), float32
            Of each image, Σ g and Σ g · (a − mean), as `kernels.gradient_statistics` takes them.
        pixels : int
            Number of pixels in an image.
        link : chainer.links.BatchNormalization
        train : bool
            Whether the statistics are the batch's own.
        """
        beta, projection = sums.sum(axis=0, dtype=np.float64)
        if train and is_shared(link):
            beta, projection = _mean_over_ranks(link, np.stack([beta, projection]))
        gamma = projection * self._inverse_std
        scale, shift, mean = self.rows
        count = len(sums) * pixels
        by_g = scale.astype(np.float64)
        by_a = -by_g * self._inverse_std * gamma / count if train else 0 * by_g
        constant = -by_g * beta / count - by_a * mean if train else 0 * by_g
        norm = np.stack([by_g, by_a, constant, scale, shift]).astype(np.float32)
        return Gradient(norm, gamma.astype(np.float32), beta.astype(np.float32))


def _moments(sums: np.ndarray, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance over a batch, (C,) float64, from each image's `kernels.statistics` (B, 3, C)."""
    k, s, q = sums.swapaxes(0, 1).astype(np.float64)
    means = k + s / pixels
    mean = means.mean(axis=0)
    squares = q - s * s / pixels + pixels * (means - mean) ** 2
    return mean, np.maximum(squares.sum(axis=0), 0) / (len(sums) * pixels)


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
