"""MNIST, embedded, and any other data set in MNIST's IDX format."""

import gzip
import math
import os
import struct
import zlib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from srmnist.system.errors import UserError
from srmnist.system.files import FileError, open_regular

# http://yann.lecun.com/exdb/mnist/: "unsigned byte", three dimensions and one.
_IMAGES_MAGIC = 0x00000803
_LABELS_MAGIC = 0x00000801

# gzip makes images 5 to 10 times smaller, and zeros 1,000 times. A file is refused as harmful if it unpacks
# to more than 64 MB (80,000 images of MNIST's size) and to more than 100 times its own size.
_UNPACKED_UNASKED = 64 << 20
_MOST_PACKED = 100


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
        return Dataset(*(Split(npz[f"{half}_images"], npz[f"{half}_labels"]) for half in ("train", "test")))


def load_dataset(directory: str | Path | None = None) -> Dataset:
    """Read a data set: the embedded MNIST, or IDX files from a directory.

    Parameters
    ----------
    directory : path, optional
        Holds ``train-images-idx3-ubyte`` and ``t10k-images-idx3-ubyte``, and if there are labels
        ``train-labels-idx1-ubyte`` and ``t10k-labels-idx1-ubyte``; each plain or with ``.gz``.

    Raises
    ------
    UserError
        If a file is missing, unreadable or malformed, or if the two halves differ in image size.
    """
    if directory is None:
        return embedded_mnist()
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"--data: {directory} is not a directory")
    train, test = (_read_split(directory, half) for half in ("train", "t10k"))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f"{directory}: training images {_size(train.images)}, test images {_size(test.images)}"
        )
    return Dataset(train, test)


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


def _read_split(directory: Path, half: str) -> Split:
    images_name = f"{half}-images-idx3-ubyte"
    images_file = _find(directory, images_name)
    if images_file is None:
        raise UserError(f"--data: {directory} has no {images_name} (or {images_name}.gz)")
    images = read_idx(images_file, _IMAGES_MAGIC)
    labels_file = _find(directory, f"{half}-labels-idx1-ubyte")
    labels = None if labels_file is None else read_idx(labels_file, _LABELS_MAGIC)
    if labels is not None and len(labels) != len(images):
        raise UserError(f"{labels_file}: {len(labels)} labels for {len(images)} images")
    return Split(images, labels)


def _find(directory: Path, name: str) -> Path | None:
    for candidate in (directory / name, directory / f"{name}.gz"):
        if candidate.exists():
            return candidate
    return None


def read_idx(path: Path, magic: int) -> np.ndarray:
    """Read one IDX file of unsigned bytes.

    Parameters
    ----------
    path : Path
        A file whose name ends in ``.gz`` is decompressed, up to the size that its header claims.
    magic : int
        The number that the file must begin with. Its lowest byte is the number of dimensions.

    Returns
    -------
    ndarray of uint8
        With this number of dimensions.

    Raises
    ------
    FileError
        If the file cannot be read, or if its content does not agree with its header.
    """
    ndim = magic & 0xFF
    packed = path.suffix == ".gz"
    try:
        with open_regular(path) as raw, gzip.open(raw) if packed else raw as file:
            header = file.read(4 + 4 * ndim)
            if len(header) < 4 + 4 * ndim or struct.unpack_from(">I", header)[0] != magic:
                raise FileError(
                    f"{path}: not an IDX file with {ndim} dimension{'s'[: ndim - 1]} of unsigned bytes"
                )
            shape = struct.unpack_from(f">{ndim}I", header, 4)
            if 0 in shape:
                raise FileError(f"{path}: its header says {'×'.join(map(str, shape))}: no data")
            size = math.prod(shape)
            room = os.fstat(raw.fileno()).st_size
            if size > (max(_UNPACKED_UNASKED, room * _MOST_PACKED) if packed else room):
                raise FileError(
                    f"{path}: {size:,} bytes expected by its header, more than a file of {room:,} holds"
                )
            body = _read_at_most(file, size + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise FileError(f"{path}: cannot be read: {reason}") from error
    if len(body) != size:
        found = "more" if len(body) > size else f"{len(body):,}"
        raise FileError(f"{path}: {size:,} bytes expected by its header, {found} found")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _read_at_most(file: BinaryIO | gzip.GzipFile, size: int) -> bytearray:
    """Read up to `size` bytes, in parts: the header may claim more than the file holds."""
    body = bytearray()
    while len(body) < size:
        chunk = file.read(min(size - len(body), 1 << 24))
        if not chunk:
            break
        body += chunk
    return body


def _size(images: np.ndarray) -> str:
    return "×".join(map(str, images.shape[1:]))
