"""What a network makes of ten test images while it learns: kept during a run, drawn at its end."""

import itertools
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import chainer
import numpy as np
from chainer import training

from srmnist.data import pick
from srmnist.restoration import restore
from srmnist.system.archive import read_npz
from srmnist.system.files import FileError, write_whole
from srmnist.training.pairs import Pairs
from srmnist.weights import save_arrays

FILE, PICTURE = "learning.npz", "learning.gif"
# An earlier run's file, until there is a snapshot of the run that has begun in its directory.
_EARLIER = "learning_earlier.npz"

_EARLY = (1 / 64, 1 / 16, 1 / 4)  # epochs
_LARGEST = 112  # pixels; larger images are kept with fewer pixels
_MOST_FRAMES = 100  # more than moments can pass in 10**9 epochs

# Settings without which the same iteration is not the same network.
_SAME = ("seed", "size", "recipe", "data")


def moments_passed(before: float, after: float) -> bool:
    """Whether a run that went on from one epoch to another has passed a moment that is worth a picture.

    These are 1/64, 1/16 and 1/4 of the first epoch, and the ends of the epochs 1, 2, …, 10, 20, …, 100,
    200, …: a long run has few more of them than a short one.

    Parameters
    ----------
    before, after : float
        Epochs: a whole number and a fraction.
    """
    if any(before < moment <= after for moment in _EARLY):
        return True
    epoch = math.floor(after)
    return before < epoch and epoch % 10 ** (len(str(epoch)) - 1) == 0


@dataclass
class Learning:
    """Ten test images, and what the network made of them at several moments of a run.

    Attributes
    ----------
    degraded, originals : ndarray of uint8, shape (N, H, W)
        Grey values.
    images : int
        The number of training images.
    epochs : list of float
        The moments, in passes over the training images.
    losses : list of float
        The mean squared error of the ten images at each moment, of intensities from 0 to 1.
    restored : list of ndarray of uint8, shape (N, H, W)
        The network's output at each moment.
    """

    degraded: np.ndarray
    originals: np.ndarray
    images: int
    epochs: list[float]
    losses: list[float]
    restored: list[np.ndarray]

    def until(self, epoch: float) -> "Learning":
        """What a run that goes on from an epoch has kept; a shorter run's end is not a moment of it."""
        moments = [
            each
            for before, each in zip(
                [-1.0, *self.epochs], zip(self.epochs, self.losses, self.restored, strict=True), strict=False
            )
            if each[0] <= epoch and (before < 0 or moments_passed(before, each[0]))
        ]
        columns = [list(column) for column in zip(*moments, strict=True)] or [[], [], []]
        return Learning(self.degraded, self.originals, self.images, *columns)


class Recorder(training.Extension):
    """Trainer extension that restores ten test images at moments of the run, and keeps the results.

    Ten images take the network about a thousandth of a second.

    Parameters
    ----------
    test : Pairs
        The test images. The ten are those of the article's figures.
    images : int
        The number of training images.
    identity : mapping
        What `srmnist.training.settings.identity` gives for the run.
    """

    name = "learning"  # type: ignore[assignment]
    priority = 0  # after the log, before the snapshot

    def __init__(self, test: Pairs, images: int, identity: Mapping[str, int | str]) -> None:
        self._degraded, self._originals = test.batch(pick(len(test)))
        self._run = json.dumps({name: identity[name] for name in _SAME})
        self._before = 0.0  # epochs
        self.learning = Learning(to_grey(self._degraded), to_grey(self._originals), images, [], [], [])

    def resume(self, source: Path, epoch: float) -> None:
        """Go on with what was kept beside a snapshot, up to the epoch of the snapshot.

        If there is nothing usable, it is told on stderr, and the pictures begin at that epoch.
        """
        self._before = epoch
        path, earlier = source.with_name(FILE), source.with_name(_EARLIER)
        if source.name.startswith("snapshot_earlier") and earlier.exists():
            path = earlier
        try:
            found, run = _read(path)
            if run != self._run or found.originals.shape != self.learning.originals.shape:
                raise FileError(f"{path}: is of a run with other settings")
            self.learning = found.until(epoch)
        except FileError as error:
            print(f"{error}; {PICTURE} will begin at epoch {epoch:.4g}", file=sys.stderr)

    def initialize(self, trainer: training.Trainer) -> None:
        if not self.learning.epochs:
            self(trainer)

    def trigger(self, trainer: training.Trainer) -> bool:  # type: ignore[override]
        before, self._before = self._before, trainer.updater.epoch_detail
        return moments_passed(before, self._before)

    def __call__(self, trainer: training.Trainer) -> None:
        self._add(trainer.updater.epoch_detail, trainer.updater.get_optimizer("main").target)

    def _add(self, epoch: float, model: chainer.Chain) -> None:
        restored, loss = restore_with_loss(self._degraded, self._originals, model)
        if not math.isfinite(loss):  # diverged: the run ends at its next snapshot
            return
        self.learning.epochs.append(epoch)
        self.learning.losses.append(loss)
        self.learning.restored.append(to_grey(restored))

    def write(self, out: Path) -> None:
        """Write the file from which a resumed run goes on.

        Raises
        ------
        UserError
            If it cannot be written.
        """
        if self.learning.epochs:
            save(out / FILE, self.learning, self._run)

    def finish(self, out: Path, epoch: float, model: chainer.Chain) -> list[Path]:
        """Draw the run, whose last moment is its end. A failure is told on stderr: it must not lose a run.

        Returns
        -------
        list of Path
            The files written.
        """
        try:
            if epoch > self.learning.epochs[-1]:
                self._add(epoch, model)
            self.write(out)
            write_whole(out / PICTURE, lambda file: file.write(draw(self.learning)))
        except Exception as error:  # whatever a drawing library may raise
            print(f"{out / PICTURE}: was not drawn: {error}", file=sys.stderr)
            return []
        return [out / PICTURE, out / FILE]


def set_aside(out: Path, start: Path | None) -> None:
    """Keep an earlier run's file under another name, if a run does not go on from that run.

    Parameters
    ----------
    out : Path
        The directory of the run.
    start : Path or None
        The snapshot from which the run goes on.
    """
    goes_on = start is not None and start.parent.samefile(out)
    if not goes_on and (out / FILE).exists() and not (out / _EARLIER).exists():
        (out / FILE).replace(out / _EARLIER)


def drop_earlier(out: Path) -> None:
    """Remove what `set_aside` has kept."""
    (out / _EARLIER).unlink(missing_ok=True)


def draw(learning: Learning) -> bytes:
    """An animation of a run, as a GIF file."""
    from srmnist.training.animation import LearningFigure, gif  # matplotlib takes a second to import

    figure = LearningFigure(learning.degraded, learning.originals, learning.images, learning.epochs[-1])
    return gif(figure.frames(learning.epochs, learning.losses, learning.restored))


def save(path: Path, learning: Learning, run: str) -> None:
    """Save what a run has kept as an npz file."""
    count, height, width = learning.originals.shape
    arrays = {
        "moments": np.asarray(len(learning.epochs)),
        "count": np.asarray(count),
        "height": np.asarray(height),
        "width": np.asarray(width),
        "images": np.asarray(learning.images),
        "run": np.asarray(run),
        "degraded": learning.degraded,
        "originals": learning.originals,
        "epochs": np.asarray(learning.epochs),
        "losses": np.asarray(learning.losses),
        "restored": np.stack(learning.restored),
    }
    save_arrays(path, arrays)


def load(path: Path) -> Learning:
    """Read what a run has kept.

    Raises
    ------
    FileError
        If the file is not one that a run has written.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[Learning, str]:
    number = np.asarray(0)
    numbers = {name: number for name in ("moments", "count", "height", "width", "images")}
    found = read_npz(path, numbers | {"run": np.asarray("")}, others=True)
    moments, count, height, width, images = (int(found[name]) for name in numbers)
    if not (1 <= moments <= _MOST_FRAMES and 1 <= count <= 10 and images >= 1):
        raise FileError(f"{path}: it has {moments} moments of {count} images, of a training with {images}")
    if not (1 <= height <= _LARGEST and 1 <= width <= _LARGEST):
        raise FileError(f"{path}: its images are of {height}×{width} pixels")
    row = np.empty((count, height, width), np.uint8)
    expected = found | {
        "degraded": row,
        "originals": row,
        "epochs": np.empty(moments),
        "losses": np.empty(moments),
        "restored": np.empty((moments, *row.shape), np.uint8),
    }
    arrays = read_npz(path, expected)
    epochs, losses = arrays["epochs"].tolist(), arrays["losses"].tolist()
    if epochs[0] < 0 or any(a >= b for a, b in itertools.pairwise(epochs)) or epochs[-1] > 2**31:
        raise FileError(f"{path}: its epochs do not rise")
    if not all(0 <= loss <= 1 for loss in losses):
        raise FileError(f"{path}: its losses are not from 0 to 1")
    kept = Learning(arrays["degraded"], arrays["originals"], images, epochs, losses, [*arrays["restored"]])
    return kept, arrays["run"].item()


def restore_with_loss(
    degraded: np.ndarray, originals: np.ndarray, model: chainer.Chain
) -> tuple[np.ndarray, float]:
    """Images that a network in training restores, and their mean squared error.

    Parameters
    ----------
    degraded, originals : ndarray of float32, shape (N, 1, H, W)
        Intensities in [0, 1].
    model : CNNAE

    Returns
    -------
    restored : ndarray of float32, shape (N, 1, H, W)
    loss : float
    """
    restored = restore(degraded, model)
    return restored, float(np.mean((restored - originals) ** 2, dtype=np.float64))


def to_grey(images: np.ndarray) -> np.ndarray:
    """Images as they are kept: grey values, and no more than 112×112 of the pixels.

    Parameters
    ----------
    images : ndarray of float32, shape (N, 1, H, W)
        Intensities in [0, 1].

    Returns
    -------
    ndarray of uint8, shape (N, H, W), or smaller
        Of larger images every second pixel, or every third, and so on.
    """
    step = math.ceil(max(images.shape[2:]) / _LARGEST)
    return np.round(images[:, 0, ::step, ::step] * 255).astype(np.uint8)
