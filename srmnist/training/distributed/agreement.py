"""What ranks must agree on after each step, beside the weights."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

import chainer
import numpy as np
from chainer import training

from srmnist.training.interruption import Interruption
from srmnist.training.reports import LOSS


class AgreedInterruption(Interruption):
    """`Interruption` at a signal that any rank has got, once all know of it.

    SIGUSR1 counts as well: mpiexec hands it on and goes on itself, while it kills the ranks a quarter of a
    second after a SIGTERM or SIGINT.
    """

    signals = (*Interruption.signals, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))

    def __init__(self) -> None:
        super().__init__()
        self.noted: int | None = None

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.noted is not None:
            os._exit(128 + signum)
        self.noted = signum


class Agreement(training.Extension):
    """Trainer extension: what the ranks must agree on after each step beside the weights.

    The loss becomes the mean over ranks; so do the running statistics of batch normalisation, whose own
    formula is linear, so that it does not matter how often that is done; and a signal to one is a signal to
    all. One all-reduce of some 230 numbers does it.
    """

    name = "agreement"
    priority = training.PRIORITY_WRITER + 1  # before the evaluation

    def __init__(self, comm: Any, model: chainer.Chain, interruption: AgreedInterruption) -> None:
        self._comm = comm
        self._interruption = interruption
        self._statistics = [
            (bn, name) for bn in (model.bn1, model.bn2, model.bn3) for name in ("avg_mean", "avg_var")
        ]

    def __call__(self, trainer: training.Trainer) -> None:
        signals = self._interruption.signals
        cpu = chainer.get_device("@numpy")
        statistics = [cpu.send(getattr(bn, name)) for bn, name in self._statistics]
        loss = float(chainer.as_array(trainer.observation[LOSS]))
        noted = [self._interruption.noted == signum for signum in signals]
        mean = self._comm.allreduce(np.concatenate([[loss], noted, *statistics])) / self._comm.size

        trainer.observation[LOSS] = np.float32(mean[0])
        self._interruption.signum = next(
            (signum for signum, share in zip(signals, mean[1:], strict=False) if share), None
        )
        at = 1 + len(signals)
        for bn, name in self._statistics:
            statistic = getattr(bn, name)
            statistic[...] = bn.device.send(mean[at : at + statistic.size].astype(statistic.dtype))
            at += statistic.size
