"""Weights and snapshots on disk: written whole or not at all."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import chainer
import numpy as np

from srmnist.errors import UserError

_SNAPSHOT = "snapshot_iter_{}.npz"


def save(path: Path, target) -> None:
    """Save a link or a trainer as Chainer's npz, so that `path` is at any moment the old file or the new."""
    write_whole(path, lambda file: chainer.serializers.save_npz(file, target))


def write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file under a temporary name beside `path`, flush it to the disk, then rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_weights(path: Path, model: chainer.Chain) -> None:
    """Load weights into a model: all of them, or none and one clear error."""
    expected = chainer.serializers.npz.serialize(model)
    found = _read_npz(path)
    for name, value in expected.items():
        if name not in found:
            raise UserError(f"{path}: has no {name}; these are not CNNAE's weights")
        if found[name].shape != np.shape(value):
            raise UserError(f"{path}: {name} has shape {found[name].shape}, CNNAE needs {np.shape(value)}")
    chainer.serializers.NpzDeserializer(found).load(model)


def load_snapshot(path: Path, trainer: chainer.training.Trainer) -> None:
    """Bring a trainer to where it was when the snapshot was taken."""
    try:
        chainer.serializers.NpzDeserializer(_read_npz(path)).load(trainer)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not a snapshot of this training: {error}") from error


def newest_snapshot(out: Path) -> Path:
    """The snapshot of the latest iteration in a directory."""
    snapshots = sorted(out.glob(_SNAPSHOT.format("*")), key=lambda path: int(path.stem.rpartition("_")[2]))
    if not snapshots:
        raise UserError(f"--resume: no snapshot in {out}")
    return snapshots[-1]


@chainer.training.make_extension(trigger=(1, "epoch"), priority=-100)
def snapshot(trainer: chainer.training.Trainer) -> None:
    """Trainer extension: save a snapshot; remove all but the last two."""
    out = Path(trainer.out)
    save(out / _SNAPSHOT.format(trainer.updater.iteration), trainer)
    snapshots = sorted(out.glob(_SNAPSHOT.format("*")), key=lambda path: int(path.stem.rpartition("_")[2]))
    for old in snapshots[:-2]:
        old.unlink()


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as npz:
            return dict(npz)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
