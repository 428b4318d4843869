"""A step without a graph is the step that Chainer makes with one, bit for bit."""

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
import chainer
from chainer.serializers import npz
from chainer.training.updaters import StandardUpdater
from srmnist.engine.cpu import function, update as engine
from srmnist.training.pairs import Pairs
from srmnist.training.recipes import ARTICLE, TUNED, make_optimizer
from srmnist.training.trainer import EpochShuffle, initial_model
from srmnist.training.updater import Updater

COUNT = 13


def make_updater(kind, recipe=ARTICLE, batchsize=5, hooks=()):
    pairs = Pairs(srmnist.load_dataset().train.images[:COUNT], 10)
    optimizer = make_optimizer(recipe, initial_model(0))
    for hook in hooks:
        optimizer.add_hook(hook)
    for parameter in optimizer.target.params():
        parameter.update_rule._init_states(parameter)
    iterator = chainer.iterators.SerialIterator(range(COUNT), batchsize, order_sampler=EpochShuffle(0))
    return kind(iterator, optimizer, pairs.converter, optimizer.target.device)


def after_steps(updater, steps=6):
    """All losses, and the whole state after so many steps: more than an epoch of them."""
    reporter, losses = chainer.Reporter(), []
    reporter.add_observer("main", updater.get_optimizer("main").target)
    for _ in range(steps):
        with reporter.scope({}):
            updater.update()
            losses.append(chainer.as_array(reporter.observation["main/loss"]).copy())
    gradients = {name: p.grad for name, p in updater.get_optimizer("main").target.namedparams()}
    return {"losses": np.array(losses), **gradients, **npz.serialize(updater)}


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.asarray(found[name]).dtype == np.asarray(array).dtype, name
        assert np.asarray(found[name]).tobytes() == np.asarray(array).tobytes(), name


@pytest.mark.parametrize("recipe", [ARTICLE, TUNED])
@pytest.mark.parametrize("batchsize", [5, 1, COUNT])
def test_steps_have_the_bits_of_chainers_updater(recipe, batchsize, monkeypatch):
    expected = after_steps(make_updater(StandardUpdater, recipe, batchsize))
    monkeypatch.setattr(function, "Restore", None)  # no graph can be made
    assert_same_bits(after_steps(make_updater(Updater, recipe, batchsize)), expected)


def test_hooks_of_the_optimiser_find_the_gradients(monkeypatch):
    hooks = chainer.optimizer_hooks.WeightDecay(0.1), chainer.optimizer_hooks.GradientClipping(1e-3)
    expected = after_steps(make_updater(StandardUpdater, hooks=hooks))
    monkeypatch.setattr(function, "Restore", None)
    assert_same_bits(after_steps(make_updater(Updater, hooks=hooks)), expected)


def test_a_state_of_either_updater_goes_on_with_the_other():
    kinds = StandardUpdater, Updater
    expected = after_steps(make_updater(Updater), 6)
    for first, second in (kinds, kinds[::-1]):
        made = make_updater(first)
        after_steps(made, 3)
        later = make_updater(second)
        npz.NpzDeserializer(npz.serialize(made)).load(later)
        later.get_iterator("main").order_sampler.epoch = later.get_iterator("main").epoch + 1
        found = after_steps(later, 3)
        assert_same_bits(found, expected | {"losses": expected["losses"][3:]})


def test_plain_steps_are_chainers_functions_alone(monkeypatch):
    monkeypatch.setattr(engine, "update", None)
    monkeypatch.setattr(function, "Restore", None)
    with chainer.using_config("plain", True):
        found, expected = (after_steps(make_updater(kind), 2) for kind in (Updater, StandardUpdater))
    assert_same_bits(found, expected)


def test_hooks_of_functions_see_the_graph():
    updater = make_updater(Updater)
    with chainer.function_hooks.TimerHook() as hook:
        updater.update()
    assert hook.call_history


def test_a_model_of_ones_own_computes_its_own_loss():
    calls = []

    class Own(srmnist.CNNAE):
        def __call__(self, x, t):
            calls.append(len(x))
            return super().__call__(x, t)

    updater = make_updater(Updater)
    updater.get_optimizer("main").setup(Own())
    updater.update()
    assert calls == [5]


def test_frozen_parameters_stay():
    updater = make_updater(Updater)
    model = updater.get_optimizer("main").target
    model.conv1.disable_update()
    before = {name: parameter.array.copy() for name, parameter in model.namedparams()}
    updater.update()
    after = {name: parameter.array for name, parameter in model.namedparams()}
    same = {name for name, array in before.items() if np.array_equal(after[name], array)}
    assert same == {"/conv1/W"}
