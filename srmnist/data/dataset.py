"""A data set: a training and a test split of grey images."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from srmnist.data.mapped import MappedFile


@dataclass(frozen=True, eq=False)
class Split:
    """One half of a data set.

    Attributes
    ----------
    images : ndarray of uint8, shape (N, H, W)
        Grey values 0 (black) to 255 (white). They are in memory, or they are a file's content, mapped and
        read-only; `require_intact` must then be called before each use. Any strides.
    labels : ndarray of integers, shape (N,), or None
        Class of each image, where the data set has labels.
    no_labels : str
        If `labels` is None, the reason.
    mapped : MappedFile or None
        The file that `images` shows.
    """

    images: np.ndarray
    labels: np.ndarray | None
    no_labels: str = ""
    mapped: MappedFile | None = None

    def require_intact(self) -> None:
        """Refuse images whose file has changed since it was mapped; images in memory are always intact.

        Raises
        ------
        UserError
        """
        if self.mapped is not None:
            self.mapped.require_intact()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split, in this order if it is unpacked: ``train, test = dataset``.

    Attributes
    ----------
    train, test : Split
    name : str
        For tables and figures.
    """

    train: Split
    test: Split
    name: str

    def __iter__(self) -> Iterator[Split]:
        return iter((self.train, self.test))


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
    scaled = images[:, None].astype(dtype, order="C")
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
