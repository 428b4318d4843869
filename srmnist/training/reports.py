"""What a run reports while it trains: its log, its loss curve, and a `Progress` for the caller."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import methodcaller
from pathlib import Path

import chainer
from chainer import reporter, training
from chainer.backends import cuda
from chainer.training import extensions
from chainer.types import NdArray

from srmnist.system.files import write_whole

LOSS = "main/loss"
VALIDATION_LOSS = "validation/main/loss"


class _Losses(reporter.DictSummary):
    """Chainer's DictSummary, but it sums only when the sum is needed: a GPU's losses are fetched together.

    It sums in main memory, in the order of the losses and in float32, as Chainer does.
    """

    def __init__(self) -> None:
        super().__init__()
        self._unseen: list[dict[str, NdArray | float]] = []

    def add(self, observation: Mapping[str, chainer.Variable | NdArray | float]) -> None:
        # Only the arrays: a Variable would keep its whole graph in memory.
        self._unseen.append({name: getattr(value, "array", value) for name, value in observation.items()})

    def compute_mean(self) -> dict[str, float]:
        self._sum()
        return super().compute_mean()

    def make_statistics(self) -> dict[str, float]:
        self._sum()
        return super().make_statistics()

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        self._sum()
        # Without this line the loss would have an entry within an epoch and none at its end. Every snapshot
        # must hold the same names.
        self._summaries[LOSS]
        super().serialize(serializer)

    def _sum(self) -> None:
        for observation in _fetched(self._unseen):
            super().add(observation)
        self._unseen = []


def _fetched(observations: list[dict[str, NdArray | float]]) -> list[dict[str, NdArray | float]]:
    """Observations in main memory; all arrays on a GPU are fetched in one transfer."""
    on_device = [value for each in observations for value in each.values() if isinstance(value, cuda.ndarray)]
    if not on_device:
        return observations
    fetched = iter(cuda.cupy.stack(on_device).get())
    return [
        {name: next(fetched) if isinstance(value, cuda.ndarray) else value for name, value in each.items()}
        for each in observations
    ]


class LogReport(extensions.LogReport):
    """Chainer's LogReport; its file appears whole, and a run resumed in mid-epoch logs the same bits.

    Parameters
    ----------
    out : Path or None
        The directory of the file ``log``; None writes no file.
    """

    def __init__(self, out: Path | None) -> None:
        super().__init__()
        self._out = out
        self._log_name = None  # Chainer writes no file then; its argument filename=None means "log"

    def initialize(self, trainer: training.Trainer) -> None:
        if self.log:  # resumed, from another directory or from before the file was written
            self._write()

    def __call__(self, trainer: training.Trainer) -> None:
        entries = len(self.log)
        super().__call__(trainer)
        if len(self.log) > entries:
            self._write()

    def _init_summary(self) -> None:
        self._summary = _Losses()

    def _write(self) -> None:
        if self._out is not None:
            text = json.dumps(self.log, indent=4)
            write_whole(self._out / "log", methodcaller("write", text.encode()))


class LossCurve(training.Extension):
    """Trainer extension that draws the losses of the log to ``loss.png`` at the end of each epoch.

    Chainer's PlotReport would sum every loss a second time, and after a resume it draws a point too many.
    """

    name = "LossCurve"

    def __init__(self, out: Path) -> None:
        self._out = out

    def initialize(self, trainer: training.Trainer) -> None:
        if trainer.get_extension("LogReport").log:  # resumed
            self(trainer)

    def trigger(self, trainer: training.Trainer) -> bool:
        return trainer.updater.is_new_epoch

    def __call__(self, trainer: training.Trainer) -> None:
        from srmnist import figures  # matplotlib takes a second to import

        picture = figures.png(figures.draw_losses(trainer.get_extension("LogReport").log))
        write_whole(self._out / "loss.png", methodcaller("write", picture))


@dataclass(frozen=True)
class Progress:
    """The state of a run after a step.

    Attributes
    ----------
    iteration : int
        Number of steps so far.
    epoch : float
        Passes over the training images so far, with a fraction within an epoch.
    is_new_epoch : bool
        Whether the last step ended an epoch.
    model : CNNAE
        The model in training, on its device. Only read it.
    log : list of dict
        The losses of each epoch so far, as in the file ``log``.
    """

    iteration: int
    epoch: float
    is_new_epoch: bool
    model: chainer.Chain = field(repr=False)
    log: list[dict[str, float]] = field(repr=False)


class Follow(training.Extension):
    """Trainer extension: calls a function with a `Progress`, before the first step and after each step."""

    name = "follow"
    priority = 0  # after LogReport, before the snapshot

    def __init__(self, follow: Callable[[Progress], object]) -> None:
        self._follow = follow

    def initialize(self, trainer: training.Trainer) -> None:
        self(trainer)

    def trigger(self, trainer: training.Trainer) -> bool:
        return True

    def __call__(self, trainer: training.Trainer) -> None:
        updater = trainer.updater
        progress = Progress(
            iteration=updater.iteration,
            epoch=updater.epoch_detail,
            is_new_epoch=updater.is_new_epoch,
            model=updater.get_optimizer("main").target,
            log=list(trainer.get_extension("LogReport").log),
        )
        self._follow(progress)
