"""A data set's files are found and read."""

from pathlib import Path

import numpy as np

from srmnist.data.dataset import Dataset, Split
from srmnist.data.idx import read_idx
from srmnist.data.mnist import embedded_mnist
from srmnist.system.errors import UserError

# http://yann.lecun.com/exdb/mnist/: "unsigned byte", three dimensions and one.
_IMAGES_MAGIC = 0x00000803
_LABELS_MAGIC = 0x00000801


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


def _size(images: np.ndarray) -> str:
    return "×".join(map(str, images.shape[1:]))
