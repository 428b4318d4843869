"""Divergence: a run ends when a loss or a weight is no longer finite."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import chainer
import numpy as np
from chainer import training
from chainer.backends import cuda
from chainer.types import NdArray

from srmnist.system.errors import UserError


class StopIfDiverged(training.Extension):
    """Trainer extension that ends the run at the first loss that is not finite, before the loss is logged.

    To read a loss from a GPU, the program must wait for the GPU. So a GPU's losses are read together, once a
    second and at the end of each epoch. In between, `Snapshots` refuses to save a run whose loss was not
    finite, because Adam has then made the weights NaN, too.

    Parameters
    ----------
    out : Path or None
        The directory of the snapshots, if there are any.
    """

    name = "stop_if_diverged"
    trigger = (1, "iteration")
    priority = training.PRIORITY_EDITOR

    def __init__(self, out: Path | None = None) -> None:
        self._out = out
        self._unread: list[tuple[int, str, NdArray]] = []
        self._read_at = time.monotonic()

    def __call__(self, trainer: training.Trainer) -> None:
        for name, value in trainer.observation.items():
            self._unread.append((trainer.updater.iteration, name, getattr(value, "array", value)))
        on_device = any(isinstance(loss, cuda.ndarray) for _, _, loss in self._unread)
        if on_device and not trainer.updater.is_new_epoch and time.monotonic() < self._read_at + 1:
            return
        # Weights that are NaN stay NaN. So if the last losses are finite, all earlier losses are finite.
        last = {name: loss for _, name, loss in self._unread}
        if not all(math.isfinite(float(loss)) for loss in last.values()):
            self._stop()
        self._unread.clear()
        self._read_at = time.monotonic()

    def _stop(self) -> NoReturn:
        for iteration, name, array in self._unread:
            loss = float(array)
            if not math.isfinite(loss):
                raise _diverged(f"{name} is {loss}", iteration, self._out)
        raise AssertionError("all losses are finite")


def require_finite(arrays: Mapping[str, NdArray], iteration: int, out: Path | None) -> None:
    """End a run if one of its arrays is not finite.

    Raises
    ------
    UserError
        The message names the array and the iteration.
    """
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise _diverged(f"{name} has a value that is not finite", iteration, out)


def _diverged(what: str, iteration: int, out: Path | None) -> UserError:
    kept = "" if out is None else f"; snapshots in {out} are from before"
    # The article's own loop becomes NaN in float16, too: sums over a batch overflow.
    narrow = chainer.config.dtype == np.float16
    advice = "; CHAINER_DTYPE=float16 is too narrow to train in: take mixed16 or float32" if narrow else ""
    return UserError(f"diverged: {what} at iteration {iteration}{kept}{advice}")
