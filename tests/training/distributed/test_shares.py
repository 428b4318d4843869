"""Ranks take equal shares of the batches that one process would make, and lose no image."""

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator
from chainer.training import extensions
from srmnist.training.distributed.shares import ShareEvaluator, ShareIterator
from srmnist.training.pairs import Pairs
from srmnist.training.trainer import EpochShuffle, initial_model

COUNTERS = ("epoch", "current_position", "is_new_epoch", "epoch_detail", "previous_epoch_detail")


def numbers(count: int) -> TupleDataset:
    return TupleDataset(np.arange(count), np.arange(count))


def shares(dataset: TupleDataset, batchsize: int, size: int, **kwds) -> list[ShareIterator]:
    return [
        ShareIterator(dataset, batchsize, rank, size, order_sampler=EpochShuffle(3), **kwds)
        for rank in range(size)
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("images", [48, 50, 61])
def test_shares_together_are_the_batch_of_one_process(images, size):
    one = SerialIterator(numbers(images), 5 * size, order_sampler=EpochShuffle(3))
    ranks = shares(numbers(images), 5, size)
    for _ in range(30):
        batch = one.next()
        parts = [rank.next() for rank in ranks]
        assert [len(part) for part in parts] == [5] * size
        assert [pair for part in parts for pair in part] == batch
        for rank in ranks:
            assert [getattr(rank, name) for name in COUNTERS] == [getattr(one, name) for name in COUNTERS]


@pytest.mark.parametrize(("images", "size"), [(64, 2), (61, 2), (50, 3), (97, 4)])
def test_every_image_is_seen_once_an_epoch_whatever_the_remainder(images, size):
    ranks = shares(numbers(images), 8, size)
    seen = []
    while len(seen) < 7 * images:
        seen += [index for rank in ranks for index, _ in rank.next()]
    for epoch in range(7):
        assert sorted(seen[epoch * images : (epoch + 1) * images]) == list(range(images))


@pytest.mark.parametrize(("images", "size"), [(64, 2), (70, 2), (70, 3), (5, 4), (49, 4)])
def test_evaluation_of_the_shares_has_the_mean_of_one_process(images, size):
    pairs = Pairs(srmnist.load_dataset().test.images[:images], 10)
    model = initial_model(0)
    whole = SerialIterator(pairs, 8 * size, repeat=False, shuffle=False)
    expected = extensions.Evaluator(whole, model)()["main/loss"]
    ranks = [ShareIterator(pairs, 8, rank, size, repeat=False, shuffle=False) for rank in range(size)]
    found = [ShareEvaluator(rank, model)()["main/loss"] for rank in ranks]
    assert np.mean(found) == pytest.approx(float(expected), rel=1e-6)
    again = [ShareEvaluator(rank, model)()["main/loss"] for rank in ranks]
    assert again == found


def test_a_rank_without_a_share_reports_like_the_others():
    pairs = Pairs(srmnist.load_dataset().test.images[:3], 10)
    last = ShareIterator(pairs, 8, 3, 4, repeat=False, shuffle=False)
    assert ShareEvaluator(last, initial_model(0))() == {"main/loss": 0}
