"""What ranks agree on in each step, besides the weights."""

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
    """Trainer extension: what the ranks agree on in each step, besides the weights.

    The loss becomes the mean over the ranks. The running statistics of batch normalisation do as well; their
    formula is linear, so it does not matter how often they are averaged. A signal to one rank becomes a
    signal to all. All this takes one all-reduce of some 230 numbers. The GPU engine has averaged the loss and
    the statistics already, together with the gradients; then only the signals remain, which are on the host.

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
