"""The recipes train as they say: the article's as the article does, the tuned one better."""

import io
import itertools
import math
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from srmnist import load_dataset  # first: it makes Chainer import  # isort: skip
import chainer

from srmnist.training.recipes import (
    DECORRELATION,
    Muon,
    Schedule,
    make_optimizer,
    muon_rate,
    orthogonalise,
    rise_and_fall,
)
from srmnist.training.settings import Settings
from srmnist.training.pairs import Pairs
from srmnist.training.trainer import build_trainer, initial_model
from srmnist.training.train import train

from conftest import write_idx


def test_article_s_recipe_is_adam_with_chainer_s_defaults():
    optimizer = make_optimizer("article", initial_model(0))
    hyperparameters = optimizer.hyperparam.get_dict()
    assert hyperparameters == chainer.optimizers.Adam().hyperparam.get_dict()
    assert {type(param.update_rule).__name__ for param in optimizer.target.params()} == {"AdamRule"}


def test_tuned_recipe_gives_three_convolutions_to_muon_and_the_rest_to_adam():
    model = initial_model(0)
    make_optimizer("tuned", model)
    by_muon = {name for name, param in model.namedparams() if isinstance(param.update_rule, Muon)}
    assert by_muon == {"/conv1/W", "/conv2/W", "/conv3/W"}


def test_recipes_start_from_the_same_weights_but_for_the_last_bias():
    article, tuned = (dict(initial_model(3, recipe).namedparams()) for recipe in ("article", "tuned"))
    differing = {name for name in article if (article[name].array != tuned[name].array).any()}
    assert differing == {"/conv4/b"}
    assert article["/conv4/b"].array == 0
    assert tuned["/conv4/b"].array == -2


def test_tuned_run_starts_from_its_recipe_s_weights_and_batches(data):
    """Before the first step, and with 128 images in four steps."""
    biases = []
    follow = lambda progress: biases.append(progress.model.conv4.b.array.item())  # noqa: E731
    train(Settings(epoch=1, recipe="tuned", data=str(data)), terminal=io.StringIO(), follow=follow)
    assert biases[0] == -2
    assert len(biases) == 1 + 128 // 32


@pytest.mark.parametrize(("recipe", "batchsize"), [("article", 64), ("tuned", 32)])
def test_batches_are_the_recipe_s_unless_the_user_asks_for_others(recipe, batchsize):
    assert Settings(recipe=recipe).batchsize == batchsize
    assert Settings(recipe=recipe, batchsize=48).batchsize == 48


@pytest.mark.parametrize("shape", [(16, 9), (32, 144), (64, 288)])
def test_orthogonalised_matrix_keeps_directions_and_levels_their_sizes(shape):
    matrix = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    u, _, vt = np.linalg.svd(matrix, full_matrices=False)
    found = u.T @ orthogonalise(matrix) @ vt.T
    sizes = np.diag(found)
    assert sizes.min() > 0.6
    assert sizes.max() < 1.3
    assert np.abs(found - np.diag(sizes)).max() < 1e-4


def test_orthogonalising_no_gradient_gives_none():
    assert not orthogonalise(np.zeros((3, 5), np.float32)).any()


def test_pixels_that_correlate_by_distance_are_decorrelated_by_half():
    """The fourth root of the correlations' inverse; its squares have the mean that those of 1 have."""
    correlations = 0.8 ** np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
    values, vectors = np.linalg.eigh(correlations)
    root = vectors * (values + 0.03) ** -0.25 @ vectors.T
    root *= math.sqrt(3 / np.square(root).sum())
    np.testing.assert_allclose(DECORRELATION, root, atol=5e-4)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3"])
def test_muon_steps_along_the_gradient_s_directions_and_keeps_momentum(layer):
    model = initial_model(0)
    optimizer = make_optimizer("tuned", model)
    param = model[layer].W
    before, rng = param.array.copy(), np.random.default_rng(0)
    gradients = rng.normal(size=(2, *param.shape)).astype(np.float32)
    optimizer.alpha = 0.001  # a fortieth of the peak: Muon's rate is 0.01
    for gradient in gradients:
        param.grad = gradient
        param.update()
    first, second = gradients
    lookahead = (first + 0.9 * first, second + 0.9 * (0.9 * first + second))
    d, rows = np.array(DECORRELATION), len(before)
    steps = [orthogonalise((d @ step @ d).reshape(rows, -1)).reshape(step.shape) for step in lookahead]
    taller = math.sqrt(max(1, rows / before[0].size))
    expected = 0.01 * taller * (d @ (steps[0] + steps[1]) @ d)
    np.testing.assert_allclose(before - param.array, expected, atol=1e-6)


def test_rate_rises_and_falls():
    rates = [rise_and_fall(progress / 1000, 0.2) for progress in range(1, 1001)]
    assert np.argmax(rates) == 199
    assert max(rates) == pytest.approx(1)
    assert (np.diff(rates[:200]) > 0).all()
    assert (np.diff(rates[199:]) < 0).all()
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def trainer_of_ten_steps(tmp_path):
    pairs = Pairs(load_dataset().test.images[:20], 10)
    settings = Settings(epoch=2, batchsize=4, recipe="tuned")
    return build_trainer(initial_model(0), pairs, pairs, settings, tmp_path, io.StringIO())


def test_every_step_is_made_at_its_own_rate_and_with_fixed_statistics_after_a_fifth(tmp_path, monkeypatch):
    trainer = trainer_of_ten_steps(tmp_path)
    optimizer = trainer.updater.get_optimizer("main")
    rates, statistics = [], []
    step = trainer.updater.update_core

    def noting():
        rates.append(optimizer.alpha)
        step()
        statistics.append(optimizer.target.bn3.avg_var.copy())

    monkeypatch.setattr(trainer.updater, "update_core", noting)
    trainer.run()
    assert rates == [pytest.approx(0.04 * rise_and_fall(step / 10, 0.2)) for step in range(1, 11)]
    changed = [(before != after).any() for before, after in itertools.pairwise(statistics)]
    assert changed == [True] + [False] * 8


@pytest.mark.parametrize("fails", [False, True])
def test_after_a_run_training_takes_the_statistics_of_its_batches_again(tmp_path, monkeypatch, fails):
    trainer = trainer_of_ten_steps(tmp_path)
    step = trainer.updater.update_core

    def failing():
        assert chainer.config.train == (trainer.updater.iteration < 2)
        if fails and trainer.updater.iteration == 7:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr(trainer.updater, "update_core", failing)
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
        trainer.run()
    assert chainer.config.train


@pytest.mark.parametrize(
    ("iterations", "warm_up", "peak"),
    [(100, 20, 0.04), (9375, 1875, 0.04), (18_750, 1875, 0.04), (75_000, 1875, 0.01)],
)
def test_rate_and_statistics_follow_from_where_a_run_is(iterations, warm_up, peak):
    """So a resumed run has them, too. A long run warms up for an epoch of MNIST, Adam to a lower peak."""
    optimizer = make_optimizer("tuned", initial_model(0))
    updater = SimpleNamespace(get_optimizer=lambda name: optimizer)
    for iteration in (warm_up - 2, warm_up - 1, warm_up, iterations // 2):
        updater.iteration = iteration
        schedule = Schedule(iterations)
        schedule.initialize(SimpleNamespace(updater=updater))
        fraction = rise_and_fall((iteration + 1) / iterations, warm_up / iterations)
        assert optimizer.alpha == pytest.approx(peak * fraction)
        assert muon_rate(optimizer.hyperparam) == pytest.approx(0.4 * fraction)
        assert chainer.config.train == (iteration < warm_up)
        schedule.finalize()
        assert chainer.config.train


def test_tuned_recipe_learns_more_in_the_same_steps(tmp_path):
    for half, split, count in zip(("train", "t10k"), load_dataset(), (1024, 200), strict=True):
        write_idx(tmp_path / f"{half}-images-idx3-ubyte", split.images[:count])
    article, tuned = (
        train(
            Settings(epoch=2, batchsize=16, data=str(tmp_path), recipe=recipe),
            tmp_path / recipe,
            terminal=io.StringIO(),
        )
        for recipe in ("article", "tuned")
    )
    assert tuned.mse < 0.9 * article.mse
