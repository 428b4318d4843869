"""Recipes: the article's way to train the network, and a better one for the same layers and epochs."""

import functools
import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import chainer
import numpy as np
from chainer import UpdateRule, backend, optimizers, training
from chainer.types import NdArray

from srmnist.model import CNNAE

ARTICLE, TUNED = "article", "tuned"
RECIPES = (ARTICLE, TUNED)

# The constants of "tuned" were chosen on MNIST's first 50,000 training images by the error on the other
# 10,000; the test images had no part in it.
_PEAK = 0.06  # Adam's alpha, at the peak
_MUON_PEAK = 0.2
_WARM_UP = 0.3  # of the whole run

# K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024: five steps of a
# Newton-Schulz iteration whose quintic polynomial has these coefficients.
_STEPS = 5
_QUINTIC = (3.4445, -4.7750, 2.0315)
_MOMENTUM = 0.9  # 0.95 there


def make_optimizer(recipe: str, model: CNNAE) -> chainer.Optimizer:
    """The optimiser of a recipe, set up for a model.

    "article" is Adam with Chainer's defaults. "tuned" gives the first three convolutions to `Muon` and
    leaves the rest to Adam; `OneCycle` goes with it.
    """
    if recipe == ARTICLE:
        return optimizers.Adam().setup(model)
    optimizer = optimizers.Adam(alpha=_PEAK).setup(model)
    for convolution in (model.conv1, model.conv2, model.conv3):
        convolution.W.update_rule = Muon(optimizer.hyperparam)
    return optimizer


class Muon(UpdateRule):
    """Momentum whose every step changes all directions of a weight matrix alike.

    The momentum of the gradients, a matrix with a row for each output channel, is replaced by the nearest
    orthogonal one, so that no few of its singular vectors decide where the step goes.

    Parameters
    ----------
    hyperparam : Hyperparameter
        An Adam's; a step is as large in proportion to its ``alpha`` as the two have been chosen at the peak.
    """

    def __init__(self, hyperparam: chainer.optimizer.Hyperparameter) -> None:
        super().__init__(hyperparam)

    def init_state(self, param: chainer.Parameter) -> None:
        self.state["momentum"] = backend.get_array_module(param.array).zeros_like(param.array)

    def update_core(self, param: chainer.Parameter) -> None:
        if param.grad is None:
            return
        momentum = self.state["momentum"]
        momentum *= _MOMENTUM
        momentum += param.grad
        with _one_thread(momentum):
            step = orthogonalise((param.grad + _MOMENTUM * momentum).reshape(len(momentum), -1))
        rate = self.hyperparam.alpha * (_MUON_PEAK / _PEAK) * math.sqrt(max(1, step.shape[0] / step.shape[1]))
        array: Any = param.array
        array -= np.float32(rate) * step.reshape(momentum.shape)


def _one_thread(array: NdArray) -> AbstractContextManager[object]:
    """Hold the host's BLAS to one thread, if it is the host that computes with the array.

    The matrices are small: BLAS's threads would gain nothing, and spin on while the engine's work.
    """
    return _blas().limit(limits=1, user_api="blas") if isinstance(array, np.ndarray) else nullcontext()


@functools.cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController  # looks at all libraries that are loaded: not before now

    return ThreadpoolController()


def orthogonalise(matrix: NdArray) -> NdArray:
    """Roughly the nearest matrix whose singular values are all 1.

    Parameters
    ----------
    matrix : ndarray of float32, shape (M, N)
        NumPy or CuPy.

    Returns
    -------
    ndarray of float32, shape (M, N)
        The same singular vectors; singular values that were not tiny are between 0.7 and 1.2.
    """
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (backend.get_array_module(x).linalg.norm(x) + 1e-7)
    for _ in range(_STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * (square @ square)) @ x
    return x.T if tall else x


class OneCycle(training.Extension):
    """Trainer extension: Adam's alpha rises in a line to its peak, and falls as a cosine to nothing.

    It follows from the iteration alone, so that a snapshot need not keep it. (L. N. Smith and N. Topin,
    "Super-convergence", 2018.)

    Parameters
    ----------
    iterations : int
        Of the whole run.
    """

    name = "OneCycle"  # type: ignore[assignment]
    trigger = (1, "iteration")

    def __init__(self, iterations: int) -> None:
        self._iterations = iterations

    def initialize(self, trainer: training.Trainer) -> None:
        self(trainer)

    def __call__(self, trainer: training.Trainer) -> None:
        step = trainer.updater.iteration + 1  # the next one, which this is for
        trainer.updater.get_optimizer("main").alpha = _PEAK * rise_and_fall(step / self._iterations)


def rise_and_fall(progress: float) -> float:
    """The share of its peak that a rate has when a part of the run, in (0, 1], is over."""
    if progress < _WARM_UP:
        return progress / _WARM_UP
    return (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP))) / 2
