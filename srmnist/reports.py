"""What a run tells while it goes: the log, the curve, the table of losses."""

import copy
import json
import math
import time
from pathlib import Path
from typing import NoReturn, TextIO

import chainer
from chainer import training
from chainer.backends import cuda
from chainer.training import extensions
from chainer.types import NdArray

from srmnist.errors import UserError
from srmnist.files import replacing, write_whole

LOSS = "main/loss"
VALIDATION_LOSS = "validation/main/loss"


class LogReport(extensions.LogReport):
    """Chainer's LogReport; its file appears whole, and a run resumed in mid-epoch logs the same bits."""

    def __init__(self) -> None:
        super().__init__()
        self._log_name = None  # Chainer is to write no file; filename=None would mean the default to it

    def initialize(self, trainer: training.Trainer) -> None:
        if self.log:  # resumed: perhaps from elsewhere, or to the moment before the file was written
            self._write(trainer)

    def __call__(self, trainer: training.Trainer) -> None:
        entries = len(self.log)
        super().__call__(trainer)
        if len(self.log) > entries:
            self._write(trainer)

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        # At the end of an epoch the sum of losses has no entries yet, and in mid-epoch it has one: with one
        # always there, every snapshot holds the same names.
        self._summary._summaries[LOSS]
        super().serialize(serializer)

    def _write(self, trainer: training.Trainer) -> None:
        text = json.dumps(self.log, indent=4)
        write_whole(Path(trainer.out) / "log", lambda file: file.write(text.encode()))


class LossPlot(extensions.PlotReport):
    """Chainer's PlotReport; its file appears whole, and after a resume it continues from the log."""

    name = "PlotReport"

    def __init__(self) -> None:
        super().__init__([LOSS, VALIDATION_LOSS], "epoch")

    def initialize(self, trainer: training.Trainer) -> None:
        # Chainer's own snapshots forget a PlotReport's trigger and its sum of losses, so that a resumed curve
        # has a point too many. Both are LogReport's.
        report = trainer.get_extension("LogReport")
        if report.log:
            *earlier, last = report.log
            self._data = {key: [(entry["epoch"], entry[key]) for entry in earlier] for key in self._y_keys}
            self._summary.add(last)
            self._trigger = lambda trainer: True
            self(trainer)
        self._trigger, self._summary = copy.deepcopy((report._trigger, report._summary))

    def __call__(self, trainer: training.Trainer) -> None:
        with replacing(Path(trainer.out) / "loss.png") as temporary:
            self._file_name = temporary.name
            super().__call__(trainer)

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Nothing: see `initialize`."""


class Lines:
    """A stream for PrintReport, which begins each line with an escape sequence for a progress bar's sake."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        self._stream.write(text if self._stream.isatty() else text.replace("\033[J", ""))

    def flush(self) -> None:
        self._stream.flush()


class StopIfDiverged(training.Extension):
    """Trainer extension: end the run at the first loss that is not a number, before anything records it.

    To look at a loss on a GPU is to wait for it, so that is done once a second and at the end of each epoch.
    No snapshot from before such a look is mistaken for a good one: Adam turns the weights into NaN, too.
    """

    name = "stop_if_diverged"
    trigger = (1, "iteration")
    priority = training.PRIORITY_EDITOR

    def __init__(self) -> None:
        self._unseen: list[tuple[int, str, NdArray]] = []
        self._looked_at = time.monotonic()

    def __call__(self, trainer: training.Trainer) -> None:
        for name, value in trainer.observation.items():
            self._unseen.append((trainer.updater.iteration, name, getattr(value, "array", value)))
        on_device = any(isinstance(loss, cuda.ndarray) for _, _, loss in self._unseen)
        if on_device and not trainer.updater.is_new_epoch and time.monotonic() < self._looked_at + 1:
            return
        # Weights that are NaN stay so: where the last losses are finite, those before them are.
        last = {name: loss for _, name, loss in self._unseen}
        if not all(math.isfinite(float(loss)) for loss in last.values()):
            self._stop(trainer)
        self._unseen.clear()
        self._looked_at = time.monotonic()

    def _stop(self, trainer: training.Trainer) -> NoReturn:
        for iteration, name, array in self._unseen:
            loss = float(array)
            if not math.isfinite(loss):
                raise UserError(
                    f"diverged: {name} is {loss} at iteration {iteration}; "
                    f"snapshots in {trainer.out} are from before"
                )
        raise AssertionError("one of the losses is not finite")


def parse_log(text: str) -> list[dict[str, float]]:
    """A log as LogReport keeps it in a snapshot, which anybody may have made.

    Raises
    ------
    ValueError
        If it is not a list of finite numbers under the names that the reports use.
    """
    try:
        log = json.loads(text)
        for number, entry in enumerate(log, 1):
            losses = (entry[LOSS], entry[VALIDATION_LOSS], entry["iteration"], entry["elapsed_time"])
            if entry["epoch"] != number or not all(map(math.isfinite, losses + tuple(entry.values()))):
                raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError("its log is not a list of finite losses") from error
    return log
