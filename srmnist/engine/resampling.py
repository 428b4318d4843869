"""The pixels and weights of Chainer's bilinear ``resize_images``, as tables for the engines.

Source: chainer/functions/array/resize_images.py of Chainer 7.8.1, with ``align_corners=True``. An output
pixel is the sum of four input pixels, each times its weight. An engine gets Chainer's bits if it computes the
weights from the two fractions (v of the row, u of the column) as Chainer does::

    lower_left, lower_right = (1 - u) * v, u * v
    upper_left, upper_right = (1 - u) - lower_left, u - lower_right

and adds the products in the order upper left, upper right, lower left, lower right. Each operation must be
rounded to float32: no fused multiply-add.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Axis(NamedTuple):
    """Where an axis is sampled. The sample `i` lies between two pixels.

    Attributes
    ----------
    first, second : ndarray of int32, shape (samples,)
        The two pixels. At the end of the axis both are its last pixel.
    fraction : ndarray of float32, shape (samples,)
        The sample's distance from the first pixel, in [0, 1).
    """

    first: np.ndarray
    second: np.ndarray
    fraction: np.ndarray


def axis(length: int, samples: int) -> Axis:
    """The samples of an axis of `length` pixels, evenly from its first pixel to its last."""
    fraction, whole = np.modf(np.linspace(0, length - 1, num=samples, dtype=np.float64))
    first = whole.astype(np.int32)
    return Axis(first, np.minimum(first + 1, np.int32(length - 1)), fraction.astype(np.float32))
