"""A run in a Jupyter notebook: a figure below the cell, redrawn while the network learns."""

import sys
import time
from typing import Any

import numpy as np

from srmnist.training.animation import LearningFigure
from srmnist.training.learning import moments_passed, restore_with_loss, to_grey
from srmnist.training.reports import Progress

_DRAWING = 0.05  # fraction of the run's time
_SHORTEST = 0.5  # seconds from one drawing to the next


class LiveFigure:
    """Shows a run below a notebook's cell: ten images and the loss curve, redrawn in place.

    Give it to `srmnist.train` as ``follow``. A run in a notebook has one by default.

    It is drawn before the first step, early in the first epoch, at the end, and otherwise so often that
    the drawings take a twentieth of the run's time.

    Parameters
    ----------
    degraded, originals : ndarray of float32, shape (N, 1, H, W)
        At most ten images and their originals, intensities in [0, 1].
    images : int
        The number of training images.
    epochs : int
        Where the run ends.
    """

    def __init__(self, degraded: np.ndarray, originals: np.ndarray, images: int, epochs: int) -> None:
        self._degraded, self._originals = degraded, originals
        self._figure = LearningFigure(to_grey(degraded), to_grey(originals), images, epochs)
        self._total = epochs
        self._epochs: list[float] = []
        self._losses: list[float] = []
        self._before = 0.0  # epochs
        self._due = 0.0  # on the clock
        self._display: Any = None
        self._failed = False

    def __call__(self, progress: Progress) -> None:
        if self._failed:
            return
        before, self._before = self._before, progress.epoch
        early = progress.epoch < 1 and moments_passed(before, progress.epoch)
        if early or progress.epoch >= self._total or time.monotonic() >= self._due:
            began = time.monotonic()
            try:
                self._draw(progress)
            except Exception as error:  # a run is not lost with a figure of it
                print(f"the figure of the run cannot be drawn: {error}", file=sys.stderr)
                self._failed = True
                return
            ended = time.monotonic()
            self._due = ended + max(_SHORTEST, (ended - began) * (1 / _DRAWING - 1))

    def _draw(self, progress: Progress) -> None:
        from IPython.display import display

        restored, loss = restore_with_loss(self._degraded, self._originals, progress.model)
        self._epochs.append(progress.epoch)
        self._losses.append(loss)
        self._figure.set_moment(to_grey(restored), self._epochs, self._losses, progress.log)
        if self._display is None:
            self._display = display(self._figure, display_id=True)
        else:
            self._display.update(self._figure)
