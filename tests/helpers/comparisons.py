"""Models, images and comparisons of whole training steps, for the tests of the engines."""

import copy

import numpy as np

from srmnist import CNNAE
import chainer


def make_model(seed):
    """A model in which no parameter has its initial value."""
    random = np.random.default_rng(seed)
    model = CNNAE()
    for parameter in model.params():
        parameter.array[...] = random.normal(scale=0.2, size=parameter.shape)
    for link in (model.bn1, model.bn2, model.bn3):
        link.gamma.array += 1
        link.avg_mean[...] = random.normal(scale=0.1, size=link.avg_mean.shape)
        link.avg_var[...] = random.uniform(0.5, 1.5, link.avg_var.shape)
    return model


def images(seed, shape):
    random = np.random.default_rng(seed)
    batch, height, width = shape
    return random.random((2, batch, 1, height, width), np.float32)


def everything(model, x, t, plain, train=True):
    """Output, loss, every gradient and every running statistic."""
    with chainer.using_config("plain", plain), chainer.using_config("train", train):
        x = chainer.Variable(x)
        model.cleargrads()
        y = model.forward(x)
        loss = chainer.functions.mean_squared_error(y, t)
        loss.backward()
    statistics = {
        f"{link.name}/{name}": getattr(link, name)
        for link in (model.bn1, model.bn2, model.bn3)
        for name in ("avg_mean", "avg_var")
    }
    gradients = {name: parameter.grad for name, parameter in model.namedparams()}
    return {"y": y.array, "loss": loss.array, "gx": x.grad, **gradients, **statistics}


def closest_to_kink(model, x, train):
    """The smallest magnitude of any ReLU's input: if rounding decides its sign, gradients jump."""
    smallest = np.inf
    with chainer.using_config("train", train), chainer.no_backprop_mode():
        model = copy.deepcopy(model)
        for layer in (1, 2, 3):
            h = model[f"bn{layer}"](model[f"conv{layer}"](x))
            smallest = min(smallest, float(np.abs(h.array).min()))
            x = chainer.functions.relu(h)
    return smallest


def assert_same(found, expected, tolerance):
    for name, value in expected.items():
        size = np.abs(value).max()
        worst = np.abs(found[name] - value).max()
        assert worst <= tolerance * size + 1e-12, f"{name}: off by {worst} of {size}"
