"""Pairs (degraded, original) of a batch, compiled by Numba, with the bits of `srmnist.degrade`."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from srmnist.engine.cpu import threads
from srmnist.engine.cpu.compiled import compiled
from srmnist.engine.resampling import axis

# Below this number of pixels a second thread takes longer to wake than it saves.
_PIXELS_PER_THREAD = 1 << 16


class PairMaker:
    """Makes pairs of one size of images.

    Parameters
    ----------
    height, width : int
        Of the images.
    size : int
        Height and width that the images are shrunk to.
    """

    def __init__(self, height: int, width: int, size: int) -> None:
        self._size = size
        self._shrinking = (*axis(height, size), *axis(width, size))
        self._enlarging = (*axis(size, height), *axis(size, width))

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Make the pairs of a batch.

        Parameters
        ----------
        images : ndarray of uint8, shape (N, H, W), contiguous

        Returns
        -------
        degraded, originals : ndarray of float32, shape (N, 1, H, W)
        """
        count, height, width = images.shape
        degraded, originals = np.empty((2, count, height, width), np.float32)
        slices = min(count, threads.thread_count(), math.ceil(images.size / _PIXELS_PER_THREAD))

        def make_slice(_: int, first: int, last: int) -> None:
            part = slice(first, last)
            shrunk = np.empty((self._size, self._size), np.float32)
            _make(images[part], degraded[part], originals[part], shrunk, self._shrinking, self._enlarging)

        threads.run_parts(make_slice, count, slices)
        return degraded[:, None], originals[:, None]


@compiled
def _make(images, degraded, originals, shrunk, shrinking, enlarging):
    """Convert and degrade images (N, H, W); `shrunk` is scratch memory."""
    scale = np.float32(1 / 255.0)
    count, height, width = images.shape
    for i in range(count):
        for y in range(height):
            for x in range(width):
                originals[i, y, x] = np.float32(images[i, y, x]) * scale
        _resize(originals[i], shrunk, shrinking)
        _resize(shrunk, degraded[i], enlarging)


@njit
def _resize(image, out, samples):
    """Sample an image as `srmnist.engine.resampling` says. Numba does not fuse products and sums."""
    rows, next_rows, row_fractions, columns, next_columns, column_fractions = samples
    one = np.float32(1)
    for y in range(out.shape[0]):
        upper, lower, v = image[rows[y]], image[next_rows[y]], row_fractions[y]
        for x in range(out.shape[1]):
            u = column_fractions[x]
            lower_left, lower_right = (one - u) * v, u * v
            upper_left, upper_right = (one - u) - lower_left, u - lower_right
            left, right = columns[x], next_columns[x]
            of_row_above = upper[left] * upper_left + upper[right] * upper_right
            out[y, x] = (of_row_above + lower[left] * lower_left) + lower[right] * lower_right
