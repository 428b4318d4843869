"""Weights on disk: Chainer's npz, written whole and read with suspicion."""

import io
from collections.abc import Mapping
from pathlib import Path

import chainer
import numpy as np

from srmnist.archive import read_npz
from srmnist.files import write_whole


def save(path: Path, model: chainer.Link) -> None:
    """Save a model's weights as Chainer's ``save_npz`` does, but whole or not at all.

    Raises
    ------
    UserError
        If the file cannot be written; what stood there before is then untouched.
    """
    save_arrays(path, chainer.serializers.npz.serialize(model))


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Save arrays as an npz file, whole or not at all.

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
    np.savez_compressed(buffer, **arrays)
    write_whole(path, lambda file: file.write(buffer.getbuffer()))


def load_weights(path: str | Path, model: chainer.Link) -> None:
    """Load weights into a model: all of them, or none and one clear error.

    Unlike Chainer's ``load_npz`` this never unpickles, so the file may come from anybody.

    Raises
    ------
    FileError
        If the file is damaged, or does not hold finite weights of just this model.
    """
    arrays = read_npz(Path(path), chainer.serializers.npz.serialize(model))
    chainer.serializers.NpzDeserializer(arrays).load(model)
