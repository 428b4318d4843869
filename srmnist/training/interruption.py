"""Signals that stop a run: it first finishes its step and writes a snapshot."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

from chainer.training import Extension, Trainer

# Windows has no SIGHUP, which is what a closed terminal sends.
SIGNALS = (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class Interrupted(KeyboardInterrupt):
    """A signal has stopped a run, after a whole step.

    Attributes
    ----------
    status : int
        The exit status of a process that the signal ends: 128 plus the signal's number, so 130 for SIGINT.
    iteration : int
        The number of steps made.
    result : srmnist.training.train.Result or None
        The results so far, with the model.
    """

    def __init__(self, signum: int, iteration: int, kept: bool) -> None:
        files = "a snapshot is written" if kept else "no file is written"
        super().__init__(f"stopped by {signal.Signals(signum).name} after iteration {iteration}; {files}")
        self.status = 128 + signum
        self.iteration = iteration
        self.result: Any = None


class Interruption(Extension):
    """Trainer extension that stops the run after a signal; as a context manager it handles the signals.

    A signal may come at any moment and changes only `noted`. Once in each step, before any extension that
    acts on `signum`, `latch` sets `signum`. So either all of a step's extensions know of the signal (the
    snapshot is written, then the run stops) or none does.

    A second SIGINT raises KeyboardInterrupt at once; any other second signal ends the process. A signal that
    the process ignored when it started (as with nohup) stays ignored. Outside the main thread Python allows
    no handlers, so signals do what they did before.

    Parameters
    ----------
    signals : sequence of int
        The signals that stop the run.
    kept : bool
        Whether the run writes snapshots.
    """

    name = "interruption"
    priority = -200  # after the snapshot

    def __init__(self, signals: Sequence[int] = SIGNALS, kept: bool = True) -> None:
        self.signals = signals
        self.kept = kept
        self.noted: int | None = None
        self.signum: int | None = None
        self._before: dict[int, Any] = {}
        self._terminals: list[int] = []

    def __enter__(self) -> Interruption:
        self._terminals = [number for number in (1, 2) if os.isatty(number)]
        if threading.current_thread() is threading.main_thread():
            for signum in self.signals:
                if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                    self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def latch(self, signum: int | None) -> None:
        """Tell this step's extensions of a signal; None is no signal."""
        self.signum = signum

    def trigger(self, trainer: Trainer) -> bool:
        """Whether a signal has asked the run to stop."""
        return self.signum is not None

    def __call__(self, trainer: Trainer) -> None:
        assert self.signum is not None
        raise Interrupted(self.signum, trainer.updater.iteration, self.kept)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum == getattr(signal, "SIGHUP", None):
            self._silence_closed_terminals()
        if self.noted is None:
            self.noted = signum
        elif signum == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            os._exit(128 + signum)

    def _silence_closed_terminals(self) -> None:
        """Replace a closed terminal by the null device: an error of a print would end the run."""
        for number in self._terminals:
            if not os.isatty(number):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
