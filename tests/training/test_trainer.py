"""Training is what the article's script builds, and repeats itself bit for bit."""

import io
import json
import weakref
from pathlib import Path

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
import chainer
from chainer.training import extensions
from srmnist.training import reports
from srmnist.training.settings import Settings
from srmnist.training.pairs import Pairs
from srmnist.training.trainer import EpochShuffle, build_trainer, initial_model
from srmnist.training.train import train


def weights(directory: Path) -> dict[str, np.ndarray]:
    with np.load(directory / "model.npz") as npz:
        return dict(npz)


def test_defaults_are_the_article_s():
    settings = Settings()
    assert (settings.epoch, settings.batchsize, settings.size) == (10, 64, 10)
    assert settings.gpu < 0


def test_trainer_is_built_as_in_the_article(tmp_path):
    train_split, test_split = srmnist.load_dataset()
    pairs = Pairs(train_split.images[:128], 10)
    test_pairs = Pairs(test_split.images[:64], 10)
    trainer = build_trainer(srmnist.CNNAE(), pairs, test_pairs, Settings(), tmp_path, io.StringIO())

    assert isinstance(trainer.updater, chainer.training.updaters.StandardUpdater)
    assert (trainer.stop_trigger.period, trainer.stop_trigger.unit) == (10, "epoch")
    iterator = trainer.updater.get_iterator("main")
    assert type(iterator) is chainer.iterators.SerialIterator
    assert iterator.batch_size == 64
    assert iterator.dataset == range(128)  # the converter makes the pairs
    degraded, original = pairs[5]
    np.testing.assert_array_equal(original, srmnist.load_mnist()[0][5])
    np.testing.assert_array_equal(degraded, srmnist.degrade(original[None])[0])

    optimizer = trainer.updater.get_optimizer("main")
    assert type(optimizer) is chainer.optimizers.Adam
    defaults = chainer.optimizers.Adam().hyperparam.get_dict()
    assert optimizer.hyperparam.get_dict() == defaults
    for name, kind in (
        ("validation", extensions.Evaluator),
        ("LogReport", extensions.LogReport),
        ("PrintReport", extensions.PrintReport),
        ("LossCurve", reports.LossCurve),
    ):
        assert isinstance(trainer.get_extension(name), kind)


def test_losses_are_summed_as_chainer_sums_them_and_keep_no_graph():
    found, expected = reports._Losses(), chainer.reporter.DictSummary()
    graphs = []
    for value in np.random.default_rng(0).random(100, np.float32):
        loss = chainer.functions.square(chainer.Variable(np.array(value)))
        graphs.append(weakref.ref(loss.creator))
        for summary in (found, expected):
            summary.add({"main/loss": loss, "lr": 0.1})
    del loss
    assert not any(graph() for graph in graphs)
    assert found.compute_mean() == expected.compute_mean()
    assert found.make_statistics() == expected.make_statistics()


def test_same_seed_gives_the_same_weights_bit_for_bit(engine, small_mnist, tmp_path):
    results = [
        train(Settings(epoch=1, seed=seed, data=str(small_mnist)), tmp_path / name, terminal=io.StringIO())
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    first, second, other = (weights(tmp_path / name) for name in "abc")
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
    assert results[0].mse == results[1].mse
    assert not np.array_equal(first["conv1/W"], other["conv1/W"])


def test_seeding_leaves_the_user_s_generator_alone():
    np.random.seed(7)
    expected = np.random.random()
    np.random.seed(7)
    initial_model(0)
    assert np.random.random() == expected


def test_each_epoch_has_an_order_of_its_own_that_the_seed_fixes():
    orders = [EpochShuffle(0), EpochShuffle(0), EpochShuffle(1)]
    first, again, other = ([shuffle(np.arange(50), 0) for _ in range(2)] for shuffle in orders)
    for order in (*first, *other):
        np.testing.assert_array_equal(np.sort(order), np.arange(50))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(*first)
    assert not np.array_equal(first, other)


def test_result_log_and_weights_tell_the_same_story(engine, small_mnist, tmp_path):
    table = io.StringIO()
    result = train(Settings(epoch=2, data=str(small_mnist)), tmp_path, terminal=table)
    log = json.loads((tmp_path / "log").read_text())
    assert [entry["epoch"] for entry in log] == [1, 2]
    assert [entry["iteration"] for entry in log] == [4, 8]
    assert log[1]["main/loss"] < log[0]["main/loss"]
    assert result.mse == log[-1]["validation/main/loss"]
    assert result.images_per_second == pytest.approx(2 * 256 / result.seconds)

    header, *rows = table.getvalue().splitlines()
    assert header.split() == ["epoch", "main/loss", "validation/main/loss", "elapsed_time"]
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert "\033" not in table.getvalue()  # no terminal: clean lines and no progress bar

    model = srmnist.CNNAE()
    chainer.serializers.load_npz(tmp_path / "model.npz", model)
    originals = srmnist.load_mnist()[1][:64]
    degraded = srmnist.degrade(originals)
    restored = srmnist.restore(degraded, model)
    assert result.mse == pytest.approx(np.mean((restored - originals) ** 2), rel=1e-4)
    assert result.degraded_mse == pytest.approx(np.mean((degraded - originals) ** 2), rel=1e-4)
