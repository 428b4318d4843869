"""A data set is read: MNIST, or the files that a directory holds."""

from functools import cache
from pathlib import Path

import numpy as np

from srmnist.data.dataset import Dataset, Split
from srmnist.data.find import IMAGES, LABELS, TEST, TRAIN, Files, find_files
from srmnist.data.idx import open_idx
from srmnist.data.mnist import embedded_mnist
from srmnist.system.cli import complain
from srmnist.system.errors import UserError
from srmnist.system.files import FileError
from srmnist.system.mpiexec import launched_rank

# Three dimensions of unsigned bytes.
_IMAGES = [0x803]
# One dimension of integers; two in QMNIST, where the first column is the class (arXiv:1905.10498).
_LABELS = [0x801, 0x901, 0xB01, 0xC01, 0xC02]


def load_dataset(directory: str | Path | None = None) -> Dataset:
    """Read a data set: the embedded MNIST, or IDX files from a directory.

    Parameters
    ----------
    directory : path, optional
        Holds the images to train and to test with, and labels if there are any, under the names of MNIST,
        EMNIST or QMNIST, each file packed with gzip or not. If it holds several data sets, add the name of
        one, as in ``EMNIST/emnist-letters``, or give one of its files.

    Returns
    -------
    Dataset
        Images of files that are not packed are mapped, not read. EMNIST's files hold each image transposed:
        the images are turned upright, and a line on stderr says so once. Labels that cannot be used are left
        out.

    Raises
    ------
    UserError
        If a file of images is missing, unreadable or malformed, if the two halves differ in image size, or if
        it is not clear which data set is meant.
    """
    if directory is None:
        return embedded_mnist()
    files = find_files(Path(directory))
    train, test = (_read_split(files, half) for half in (TRAIN, TEST))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f"{files.folder}: training images {_size(train.images)}, test images {_size(test.images)}"
        )
    return Dataset(train, test, files.name)


def _read_split(files: Files, half: str) -> Split:
    images, mapped = open_idx(files.paths[half, IMAGES], _IMAGES)
    if files.prefix.lower().startswith("emnist"):
        _say(f"{files.prefix}: EMNIST's files hold each image transposed; the images are turned upright")
        images = images.swapaxes(1, 2)
    try:
        labels, reason = _read_labels(files, half, len(images)), ""
    except UserError as error:
        labels, reason = None, str(error)
    return Split(images, labels, reason, mapped)


def _read_labels(files: Files, half: str, count: int) -> np.ndarray:
    path = files.paths.get((half, LABELS))
    if path is None:
        raise FileError(f"{files.folder}: no labels beside {files.paths[half, IMAGES].name}")
    array = open_idx(path, _LABELS).array
    labels = array if array.ndim == 1 else array[:, 0]
    if len(labels) != count:
        raise FileError(f"{path}: {len(labels):,} labels for {count:,} images")
    return labels.astype(labels.dtype.newbyteorder("="))  # in memory: they need no `require_intact`


@cache
def _say(message: str) -> None:
    """Write a line on stderr once, and in one process only of those that mpiexec has started."""
    if launched_rank() == 0:
        complain(message)


def _size(images: np.ndarray) -> str:
    return "×".join(map(str, images.shape[1:]))
