"""The agreement of the ranks in each step, besides the weights: loss, statistics and signals."""

from __future__ import annotations

import signal
from typing import Any

import chainer
import numpy as np
from chainer import training

from srmnist.training.interruption import SIGNALS, Interruption
from srmnist.training.reports import LOSS

# mpiexec hands SIGUSR1 on to the ranks and goes on itself. After a SIGTERM or SIGINT it kills the ranks a
# quarter of a second later. (Windows has no SIGUSR1.)
RANK_SIGNALS = (*SIGNALS, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))


class Agreement(training.Extension):
    """Trainer extension: the ranks agree on the loss, the running statistics and the signals of a step.

    The loss and the running statistics of batch normalisation become their means over the ranks. (The formula
    of the statistics is linear, so it does not matter how often they are averaged.) A signal to one rank
    becomes a signal to all. All this takes one all-reduce of about 230 numbers. The GPU engine averages the
    loss and the statistics itself, together with the gradients; then only the signals are reduced here.

    Parameters
    ----------
    comm : chainermn.CommunicatorBase
    model : CNNAE
    interruption : Interruption
    """

    name = "agreement"
    priority = training.PRIORITY_WRITER + 1  # before the evaluation

    def __init__(self, comm: Any, model: chainer.Chain, interruption: Interruption) -> None:
        self._comm = comm
        self._interruption = interruption
        self._statistics = [
            (bn, name) for bn in (model.bn1, model.bn2, model.bn3) for name in ("avg_mean", "avg_var")
        ]

    def __call__(self, trainer: training.Trainer) -> None:
        signals = self._interruption.signals
        noted = [float(self._interruption.noted == signum) for signum in signals]
        averaged = getattr(trainer.updater, "averages_all", False)
        numbers = [noted] if averaged else [noted, *self._loss_and_statistics(trainer)]
        mean = self._comm.allreduce(np.concatenate(numbers)) / self._comm.size

        at = len(signals)
        noted_by_some = (signum for signum, mean in zip(signals, mean[:at], strict=True) if mean > 0)
        self._interruption.latch(next(noted_by_some, None))
        if averaged:
            return
        trainer.observation[LOSS] = np.float32(mean[at])
        at += 1
        for bn, name in self._statistics:
            statistic = getattr(bn, name)
            statistic[...] = bn.device.send(mean[at : at + statistic.size].astype(statistic.dtype))
            at += statistic.size

    def _loss_and_statistics(self, trainer: training.Trainer) -> list[Any]:
        cpu = chainer.get_device("@numpy")
        loss = float(chainer.as_array(trainer.observation[LOSS]))
        return [[loss], *(cpu.send(getattr(bn, name)) for bn, name in self._statistics)]
