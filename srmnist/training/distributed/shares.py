"""One rank's share of each batch: of training, and of the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import chainer
from chainer import iterators
from chainer.iterators._statemachine import iterator_statemachine
from chainer.training import extensions


class ShareIterator(iterators.SerialIterator):
    """One rank's share of each batch that a `SerialIterator` of one process would make.

    The batches, their order and all counters are those of one process with batches of ``size * batchsize``
    images. From each batch, this rank takes `batchsize` images, starting at ``rank * batchsize``. A batch at
    the end of an epoch is filled from the next epoch, as in `SerialIterator`; so all training shares have the
    same size, and each image is used once an epoch. Without repetition the last shares may be smaller, or
    empty.
    """

    def __init__(self, dataset: Sequence, batchsize: int, rank: int, size: int, **kwds: Any) -> None:
        super().__init__(dataset, batchsize * size, **kwds)
        self.size = size
        self._share = slice(rank * batchsize, (rank + 1) * batchsize)

    def __next__(self) -> list:
        return self.next_share()[0]

    next = __next__

    def next_share(self) -> tuple[list, float]:
        """The share, and its size as a fraction of the whole batch."""
        self._previous_epoch_detail = self.epoch_detail
        self._state, indices = iterator_statemachine(
            self._state, self.batch_size, self.repeat, self.order_sampler, len(self.dataset)
        )
        if indices is None:
            raise StopIteration
        share = [self.dataset[index] for index in indices[self._share]]
        return share, len(share) / len(indices)


class ShareEvaluator(extensions.Evaluator):
    """Evaluator of one rank's shares; the mean over the ranks is the loss that one process would report.

    One process reports the mean over the batches, and the last batch may be smaller. So the weight of a share
    is its fraction of its batch.
    """

    def evaluate(self) -> dict[str, float]:
        iterator, model = self.get_iterator("main"), self.get_target("main")
        evaluated = self.eval_func or model
        iterator.reset()
        total, batches = 0.0, 0
        with suppress(StopIteration), chainer.no_backprop_mode():
            while True:
                share, fraction = iterator.next_share()
                batches += 1
                if share:
                    with chainer.reporter.report_scope({}):
                        loss = evaluated(*self.converter(share, self.device))
                    total += fraction * float(chainer.as_array(loss))
        observation: dict[str, float] = {}
        with chainer.reporter.report_scope(observation):
            chainer.report({"loss": iterator.size * total / batches}, model)
        return observation
