"""Pairs of images, degraded and original: the article's ``TupleDataset(train_boke, train)``.

The article makes all pairs before the first step; MNIST's 55 MB of grey values become 440 MB of pairs. Here a
pair is made when a batch needs it, and has the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import chainer
import numpy as np
from chainer.types import NdArray

from srmnist.data import to_float
from srmnist.degradation import degrade

_CHUNK = 512  # pairs at a time, where all are needed one after the other

Make = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Pairs(chainer.dataset.DatasetMixin):
    """A data set of pairs (degraded, original), made from stored images when they are asked for.

    ``pairs[i]`` is one pair, `batch` makes several at once. Each image of a pair is an ndarray of shape
    (1, H, W) of `dtype`, with intensities in [0, 1].

    Parameters
    ----------
    images : ndarray of uint8, shape (N, H, W)
        Grey values, with any strides; they are not copied.
    size : int
        Height and width that the images are shrunk to.
    require_intact : callable, optional
        `Split.require_intact` of these images; it is called before each use.

    Attributes
    ----------
    images, size, require_intact
        As given.
    dtype : dtype
        float32, or what CHAINER_DTYPE sets.
    converter : chainer.dataset.Converter
        Makes the pairs of a batch of indices on a device; None is main memory. It is for an updater or an
        evaluator whose iterator is over ``range(len(pairs))``.
    """

    def __init__(
        self, images: np.ndarray, size: int, require_intact: Callable[[], None] = lambda: None
    ) -> None:
        self.images = images
        self.size = size
        self.require_intact = require_intact
        self.dtype = chainer.get_dtype()
        self.converter = chainer.dataset.converter()(self._send)
        self._make: Make | None = None

    def __len__(self) -> int:
        return len(self.images)

    def get_example(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """One pair, as Chainer's data sets have them."""
        degraded, originals = self.batch([i])
        return degraded[0], originals[0]

    def batch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Make several pairs: the bits of `to_float` and `degrade`.

        Parameters
        ----------
        indices : sequence of int

        Returns
        -------
        degraded, originals : ndarray of `dtype`, shape (len(indices), 1, H, W)

        Raises
        ------
        UserError
            If the images' file has changed.
        """
        self.require_intact()
        return self._pairs(np.ascontiguousarray(self.images[indices]))

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All pairs in their order, some hundred at a time."""
        for start in range(0, len(self), _CHUNK):
            yield self.batch(np.arange(start, min(start + _CHUNK, len(self))))

    def _send(self, indices: Sequence[int], device: chainer.backend.Device | None) -> tuple[NdArray, NdArray]:
        degraded, originals = self.batch(indices)
        return (degraded, originals) if device is None else (device.send(degraded), device.send(originals))

    def _pairs(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if chainer.config.plain:
            return self._make_plain(images)
        if self._make is None:
            self._make = self._fastest(images.shape[1:])
        return self._make(images)

    def _make_plain(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """By Chainer's functions, as in the article."""
        originals = to_float(images, self.dtype)
        return degrade(originals, self.size), originals

    def _fastest(self, shape: tuple[int, ...]) -> Make:
        """The CPU engine's compiled way, where there is one and it has the same bits."""
        if self.dtype != np.float32:
            return self._make_plain
        try:
            from srmnist.engine.cpu.pairs import PairMaker
        except ImportError:  # no Numba
            return self._make_plain
        make = PairMaker(*shape, self.size)
        # NumPy fuses products and sums on some processors (ARM); the compiled way does not.
        tried = np.random.default_rng(0).integers(0, 256, (1, *shape), np.uint8)
        same = all(map(np.array_equal, make(tried), self._make_plain(tried)))
        return make if same else self._make_plain
