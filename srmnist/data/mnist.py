"""MNIST, embedded."""

import struct
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from srmnist.data.dataset import Dataset, Split, to_float

_AT_ONCE = 10_000  # images that `write_mnist` copies at once


def load_mnist() -> tuple[np.ndarray, np.ndarray]:
    """The embedded MNIST, as images for the network.

    Returns
    -------
    train, test : ndarray of float32, shape (60000, 1, 28, 28) and (10000, 1, 28, 28)
        Intensities in [0, 1]: the values of Chainer's ``datasets.get_mnist(withlabel=False, ndim=3)``, and
        its dtype if CHAINER_DTYPE sets another.
    """
    import chainer

    dtype = chainer.get_dtype()
    train, test = embedded_mnist()
    return to_float(train.images, dtype), to_float(test.images, dtype)


@cache
def embedded_mnist() -> Dataset:
    """The embedded MNIST as it was published: uint8 images and labels (CC BY-SA 3.0, see mnist.LICENSE)."""
    source = resources.files("srmnist") / "mnist.npz"
    with source.open("rb") as file, np.load(file, allow_pickle=False) as npz:
        train, test = (Split(npz[f"{half}_images"], npz[f"{half}_labels"]) for half in ("train", "test"))
    return Dataset(train, test, "MNIST")


def write_mnist(directory: Path, train: int, test: int) -> None:
    """Write the embedded images as IDX files, without labels.

    Parameters
    ----------
    directory : Path
        It must exist.
    train, test : int
        Images of each half: the first ones, and from the beginning again if there are not enough.
    """
    for half, split, count in zip(("train", "t10k"), embedded_mnist(), (train, test), strict=True):
        with (directory / f"{half}-images-idx3-ubyte").open("wb") as file:
            file.write(struct.pack(">4I", 0x803, count, *split.images.shape[1:]))
            for start in range(0, count, _AT_ONCE):
                chosen = np.arange(start, min(start + _AT_ONCE, count)) % len(split.images)
                file.write(split.images[chosen].tobytes())
