"""What a run shows while it trains: a table of losses, and on a terminal progress bars below it."""

from datetime import timedelta
from typing import TextIO

from chainer import training
from chainer.training import extensions
from chainer.training.extensions import util

from srmnist.system.terminal import can_redraw, columns

_COLUMNS = ["epoch", "main/loss", "validation/main/loss", "elapsed_time"]
_LONGEST_BAR = 50
_INTERVAL = 100  # iterations


class PrintReport(extensions.PrintReport):
    """Chainer's PrintReport; it prints the header, and the epochs of a resumed run, before the first step."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(_COLUMNS, out=_Lines(stream))

    def initialize(self, trainer: training.Trainer) -> None:
        self(trainer)


class _Lines:
    """A stream. Without progress bars it leaves out the escape sequence by which PrintReport erases them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        self._stream.write(text if can_redraw(self._stream) else text.replace("\033[J", ""))

    def flush(self) -> None:
        self._stream.flush()


class ProgressBar(training.Extension):
    """Trainer extension: Chainer's progress bars, as wide as the terminal.

    Parameters
    ----------
    terminal : text stream
        For which `can_redraw` is true.
    """

    name = "ProgressBar"  # type: ignore[assignment]

    def __init__(self, terminal: TextIO) -> None:
        self._bars = _Bars(out=terminal)

    def trigger(self, trainer: training.Trainer) -> bool:  # type: ignore[override]
        # A trigger object would have a state in snapshots, but a run may be resumed without a terminal.
        return trainer.updater.iteration % _INTERVAL == 0

    def initialize(self, trainer: training.Trainer) -> None:
        self(trainer)

    def __call__(self, trainer: training.Trainer) -> None:
        self._bars.trainer = trainer
        self._bars.update()

    def finalize(self) -> None:
        self._bars.close()


class _Bars(util.ProgressBar):
    trainer: training.Trainer

    def get_lines(self) -> list[str]:
        updater = self.trainer.updater
        epochs, _ = self.trainer.stop_trigger.get_training_length()
        # One column stays empty: some terminals begin a new line in the last one.
        room = columns(self._out) - 1
        lines = [
            _bar("     total", min(updater.epoch_detail / epochs, 1), room),
            _bar("this epoch", updater.epoch_detail % 1, room),
            f"{updater.iteration:10} iter, {updater.epoch} epoch / {epochs} epochs",
        ]
        by_iteration, by_epoch = self.update_speed(updater.iteration, updater.epoch_detail)
        if 0 < by_epoch < float("inf"):
            left = timedelta(seconds=round(max(epochs - updater.epoch_detail, 0) / by_epoch))
            lines.append(f"{by_iteration:10.5g} iters/sec. Estimated time to finish: {left}.")
        return [f"{line[:room]}\n" for line in lines]


def _bar(name: str, rate: float, room: int) -> str:
    length = min(_LONGEST_BAR, max(room - len(f"{name} [] 100.00%"), 0))
    marks = "#" * int(rate * length)
    return f"{name} [{marks:.<{length}}] {rate:6.2%}"
