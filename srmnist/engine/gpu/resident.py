"""A data set on the GPU: the stored bytes, of which kernels make the pairs of each batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import chainer
import numpy as np
from chainer.types import NdArray

from srmnist.engine.gpu import plan
from srmnist.engine.gpu.device import Device

_PIECE = 1 << 24  # bytes sent at a time


class Pairs(Protocol):
    """A data set of pairs, as `srmnist.training.pairs.Pairs`."""

    images: np.ndarray
    size: int
    require_intact: Callable[[], None]


class Resident:
    """Images on a GPU, and a Chainer converter from indices to the pairs of a batch.

    Parameters
    ----------
    device : Device
        Current.
    pairs : Pairs

    Attributes
    ----------
    arrays : dict of str to ndarray
        "images" and its tables, as `plan.batch` takes them.
    image : (int, int)
        Height and width.
    """

    def __init__(self, device: Device, pairs: Pairs) -> None:
        self._device = device
        height, width = self.image = pairs.images.shape[1:]
        xp = device.xp
        images = xp.empty(pairs.images.shape, np.uint8)
        step = max(1, _PIECE // (height * width))
        for start in range(0, len(images), step):
            pairs.require_intact()
            piece = slice(start, start + step)
            images[piece] = xp.asarray(np.ascontiguousarray(pairs.images[piece]))
        self.arrays = {"images": images}
        for name, length in (("row", height), ("column", width)):
            tables = map(xp.asarray, plan.samples(length, pairs.size))
            self.arrays[f"{name}s"], self.arrays[f"{name}_fractions"] = tables

    def __call__(
        self, indices: Sequence[int], device: chainer.backend.Device | None = None
    ) -> tuple[NdArray, NdArray]:
        """The pairs of a batch, on the GPU for any `device`: the bits of `srmnist.degrade` on the CPU.

        Returns
        -------
        degraded, originals : ndarray of float32, shape (len(indices), 1, H, W)
        """
        shape = plan.Shape(len(indices), *self.image)
        chosen = self._device.xp.asarray(np.asarray(indices, np.int32))
        x, t = (self._device.empty(shape.pixels, np.float32) for _ in range(2))
        self._device.bind(plan.batch(shape), {**self.arrays, "indices": chosen, "x": x, "t": t})()
        whole = (shape.batch, 1, *self.image)
        return x.reshape(whole), t.reshape(whole)
