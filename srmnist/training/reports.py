"""What a run tells while it goes: the log, the curve, the table of losses."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import chainer
from chainer import reporter, training
from chainer.backends import cuda
from chainer.training import extensions
from chainer.types import NdArray

from srmnist.system.errors import UserError
from srmnist.system.files import replacing, write_whole

LOSS = "main/loss"
VALIDATION_LOSS = "validation/main/loss"


class _Losses(reporter.DictSummary):
    """Chainer's DictSummary, which sums only when it is asked to: losses on a GPU come over all at once.

    They are summed in their order and in float32 as ever, on the host.
    """

    def __init__(self) -> None:
        super().__init__()
        self._unseen: list[dict[str, NdArray | float]] = []

    def add(self, observation: Mapping[str, chainer.Variable | NdArray | float]) -> None:
        # The arrays alone: a Variable would keep its whole graph.
        self._unseen.append({name: getattr(value, "array", value) for name, value in observation.items()})

    def compute_mean(self) -> dict[str, float]:
        self._sum()
        return super().compute_mean()

    def make_statistics(self) -> dict[str, float]:
        self._sum()
        return super().make_statistics()

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        self._sum()
        # At the end of an epoch the sum of losses has no entries yet, and in mid-epoch it has one: with one
        # always there, every snapshot holds the same names.
        self._summaries[LOSS]
        super().serialize(serializer)

    def _sum(self) -> None:
        for observation in _fetched(self._unseen):
            super().add(observation)
        self._unseen = []


def _fetched(observations: list[dict[str, NdArray | float]]) -> list[dict[str, NdArray | float]]:
    """Observations with all that lay on a GPU in main memory, brought there at once."""
    on_device = [value for each in observations for value in each.values() if isinstance(value, cuda.ndarray)]
    if not on_device:
        return observations
    fetched = iter(cuda.cupy.stack(on_device).get())
    return [
        {name: next(fetched) if isinstance(value, cuda.ndarray) else value for name, value in each.items()}
        for each in observations
    ]


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

    def _init_summary(self) -> None:
        self._summary = _Losses()

    def _write(self, trainer: training.Trainer) -> None:
        text = json.dumps(self.log, indent=4)
        write_whole(Path(trainer.out) / "log", lambda file: file.write(text.encode()))


class LossPlot(extensions.PlotReport):
    """Chainer's PlotReport of what LogReport has logged; its file appears whole.

    Chainer's own would sum every loss a second time, and after a resume draw a point too many: its snapshots
    forget a PlotReport's trigger and its sum.
    """

    name = "PlotReport"

    def __init__(self) -> None:
        super().__init__([LOSS, VALIDATION_LOSS], "epoch")
        self._trigger = lambda trainer: True  # whenever it is called

    def initialize(self, trainer: training.Trainer) -> None:
        if trainer.get_extension("LogReport").log:  # resumed
            self(trainer)

    def __call__(self, trainer: training.Trainer) -> None:
        *earlier, last = trainer.get_extension("LogReport").log
        self._data = {key: [(entry["epoch"], entry[key]) for entry in earlier] for key in self._y_keys}
        with replacing(Path(trainer.out) / "loss.png") as temporary:
            self._file_name = temporary.name
            super().__call__(
                SimpleNamespace(
                    observation=last, updater=trainer.updater, out=trainer.out, is_before_training=False
                )
            )

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Nothing: LogReport's log is all it needs."""


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
