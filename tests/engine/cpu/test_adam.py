"""The compiled Adam has the bits of Chainer's, and leaves to Chainer what is not plain Adam."""

import numpy as np
import pytest

import chainer
from chainer import optimizers
from srmnist.engine.cpu import adam
from srmnist.training.trainer import initial_model

STEPS = 30


def gradient(random, shape):
    """Values of all magnitudes: zeros of both signs, subnormal, tiny, usual and huge ones, infinity, NaN."""
    values = random.normal(size=shape) * 10.0 ** random.integers(-44, 19, shape)
    special = random.choice([0.0, -0.0, 1e-45, -1e-39, 3e38, np.inf, np.nan], shape)
    odd = random.random(shape) < 0.002
    with np.errstate(over="ignore", under="ignore"):
        return np.where(odd, special, values).astype(np.float32)


def set_up(optimizer, change=None):
    optimizer.setup(initial_model(0))
    if change is not None:
        change(optimizer)
    for parameter in optimizer.target.params():
        parameter.update_rule._init_states(parameter)
    return optimizer


def after_steps(optimizer, update):
    """The weights and the optimiser's state after steps with gradients that have all kinds of values."""
    random = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        for _ in range(STEPS):
            for _, parameter in sorted(optimizer.target.namedparams()):
                parameter.grad = gradient(random, parameter.shape)
            update(optimizer)
    arrays = chainer.serializers.npz.serialize(optimizer)
    return arrays | chainer.serializers.npz.serialize(optimizer.target)


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)  # NaN equals NaN
        assert np.array_equal(np.signbit(found[name]), np.signbit(array)) or np.isnan(array).any()


def assert_as_chainer(make, change=None):
    found = after_steps(set_up(make(), change), adam.update)
    expected = after_steps(set_up(make(), change), lambda optimizer: optimizer.update())
    assert_same_bits(found, expected)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"alpha": 0.06, "beta1": 0.8, "beta2": 0.99, "eps": 1e-4},
        {"eta": 0.5, "weight_decay_rate": 0.01},
        {"eps": 0.0},
        {"alpha": 1},
        {"alpha": np.float64(0.001)},
        {"amsgrad": True},
        {"adabound": True},
    ],
    ids=str,
)
def test_update_has_the_bits_of_chainers_adam(changed):
    assert_as_chainer(lambda: optimizers.Adam(**changed))


def test_compiled_code_makes_the_update(monkeypatch):
    monkeypatch.setattr(optimizers.adam.AdamRule, "update_core", None)
    optimizer = set_up(optimizers.Adam())
    before = optimizer.target.conv2.W.array.copy()
    after_steps(optimizer, adam.update)
    assert optimizer.t == optimizer.target.conv2.W.update_rule.t == STEPS
    assert not np.array_equal(optimizer.target.conv2.W.array, before)


def test_rules_that_differ_are_chainers_own():
    def change(optimizer):
        model = optimizer.target
        model.conv1.W.update_rule.hyperparam.alpha = 0.1
        model.conv2.W.update_rule.enabled = False
        model.conv3.W.update_rule = optimizers.MomentumSGD().create_update_rule()
        model.conv4.W.update_rule.add_hook(chainer.optimizer_hooks.WeightDecay(0.1))
        model.conv4.b.update_rule.t = 7

    assert_as_chainer(optimizers.Adam, change)


def test_hooks_of_the_optimiser_are_called():
    def change(optimizer):
        optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(1e-3))

    assert_as_chainer(optimizers.Adam, change)


def test_other_optimisers_are_chainers_own():
    assert_as_chainer(optimizers.SMORMS3)


def test_weights_that_are_not_contiguous_are_updated():
    def change(optimizer):
        w = optimizer.target.conv2.W
        w.array = np.asfortranarray(w.array)

    assert_as_chainer(optimizers.Adam, change)
