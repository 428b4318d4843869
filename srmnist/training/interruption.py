"""SIGTERM and SIGINT: the step is finished and a snapshot written before the run stops."""

import os
import signal
import threading
from types import FrameType

from chainer.training import Extension, Trainer


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop, and has stopped after a snapshot.

    Attributes
    ----------
    status : int
        The exit status that belongs to the signal: 128 and its number, 130 for SIGINT, 143 for SIGTERM.
    iteration : int
        The last step made.
    """

    def __init__(self, signum: int, iteration: int) -> None:
        name = signal.Signals(signum).name
        super().__init__(f"stopped by {name} after iteration {iteration}, which a snapshot keeps")
        self.status = 128 + signum
        self.iteration = iteration


class Interruption(Extension):
    """Trainer extension, and context in which the signals are noted instead of obeyed at once.

    A second signal ends the process there and then. A signal that the process was started to ignore (as under
    nohup) stays ignored. Outside the main thread Python allows no handlers, and signals do what they did.
    """

    name = "interruption"
    priority = -200  # after the snapshot
    signals = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.signum: int | None = None
        self._before: dict = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for signum in self.signals:
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def trigger(self, trainer: Trainer) -> bool:
        """Whether the run has been asked to stop."""
        return self.signum is not None

    def __call__(self, trainer: Trainer) -> None:
        raise Interrupted(self.signum, trainer.updater.iteration)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum
