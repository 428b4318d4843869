"""Weights on disk: Chainer's npz, written whole or not at all, and never unpickled."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import chainer
import numpy as np

from srmnist.system.archive import holds, read_npz
from srmnist.system.files import FileError, write_whole

Link = TypeVar("Link", bound=chainer.Link)


def save(path: Path, model: chainer.Link) -> None:
    """Save a model's weights as Chainer's ``save_npz`` does, but whole or not at all.

    Raises
    ------
    UserError
        If the file cannot be written; an earlier file of that name is then untouched.
    """
    save_arrays(path, chainer.serializers.npz.serialize(model))


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Save arrays as an npz file, whole or not at all; the same arrays make the same file.

    Raises
    ------
    UserError
        If the file cannot be written.
    TypeError
        If an array holds objects: NumPy would pickle them.
    """
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"{name} holds Python objects, which could only be pickled")
    buffer = io.BytesIO()
    # Chainer keeps the names in sets, and each process has another order of a set.
    np.savez_compressed(buffer, **dict(sorted(arrays.items())))  # type: ignore[arg-type]
    write_whole(path, lambda file: file.write(buffer.getbuffer()))


def load_weights(path: str | Path, model: Link) -> Link:
    """Load weights into a model: all of them, or none and one clear error.

    Unlike Chainer's ``load_npz`` it never unpickles, so a file from an unknown source is safe.

    Parameters
    ----------
    path : path
        Chainer's npz, as `scripts/train.py` or the article's author's script writes it. Weights of another
        floating-point type (CHAINER_DTYPE) are converted, as Chainer does.
    model : Link
        For example ``CNNAE()``; its own weights are replaced.

    Returns
    -------
    Link
        `model` itself.

    Raises
    ------
    FileError
        If the file is damaged, or does not hold exactly this model's weights, all finite.
    """
    path = Path(path)
    try:
        arrays = read_npz(path, chainer.serializers.npz.serialize(model), any_width=True)
    except FileError as error:
        if holds(path, "updater/iteration"):
            raise FileError(f"{path}: is a snapshot, not weights; take the model.npz of that run") from error
        raise
    chainer.serializers.NpzDeserializer(arrays).load(model)
    return model
