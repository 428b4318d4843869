"""A data set: a training and a test split of grey images."""

from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike


class Split(NamedTuple):
    """One half of a data set.

    Attributes
    ----------
    images : ndarray of uint8, shape (N, H, W)
        Grey values 0 (black) to 255 (white).
    labels : ndarray of uint8, shape (N,), or None
        Class of each image, where the data set has labels.
    """

    images: np.ndarray
    labels: np.ndarray | None


class Dataset(NamedTuple):
    """A training and a test split."""

    train: Split
    test: Split


def to_float(images: np.ndarray, dtype: DTypeLike = np.float32) -> np.ndarray:
    """Convert grey values to intensities.

    Parameters
    ----------
    images : ndarray of uint8, shape (N, H, W)
    dtype : dtype, default float32
        A floating-point type.

    Returns
    -------
    ndarray of `dtype`, shape (N, 1, H, W)
        Intensities in [0, 1], computed as Chainer's ``get_mnist`` does: times 1/255 in that type.
    """
    scaled = images[:, None].astype(dtype)
    scaled *= 1 / 255.0
    return scaled


def pick(images: int, seed: int = 0) -> np.ndarray:
    """Choose the images that the figures show: ten different ones, or all if there are fewer.

    Parameters
    ----------
    images : int
        How many there are.
    seed : int, default 0
        Decides which ones are chosen.

    Returns
    -------
    ndarray of int64, shape (min(images, 10),)
        Their indices.
    """
    return np.random.default_rng(seed).choice(images, min(images, 10), replace=False)
