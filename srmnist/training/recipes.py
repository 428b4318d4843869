"""Recipes: how the article trains the network, and a better way for the same layers and epochs."""

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
BATCHSIZES = {ARTICLE: 64, TUNED: 32}  # images a step, unless the user asks for another number

# The constants of "tuned" were chosen by training on MNIST's first 50,000 training images and comparing the
# errors on the other 10,000. The test images were not used.
_PEAK = 0.04  # Adam's alpha, at the peak
_MUON_PEAK = 0.4
_WARM_UP = 0.2  # fraction of the whole run
_LONGEST_WARM_UP = 1875  # steps: an epoch of MNIST
_LONGEST_AT_PEAK = 18750  # steps: ten epochs of MNIST. Longer runs have a lower peak of Adam's alpha.
_BIAS = -2.0  # of conv4, at the start. The sigmoid of -2 is 0.12; the mean intensity of MNIST is 0.13.

# K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024: iterations of
# Newton-Schulz with a quintic polynomial of these coefficients.
ITERATIONS = 4  # 5 there
QUINTIC = (3.4445, -4.7750, 2.0315)
MOMENTUM = 0.9  # 0.95 there

# Neighbouring pixels of an enlarged image are alike, so a gradient hardly has the differences between
# neighbouring weights of a 3x3 kernel. This matrix is (C + 0.03 I)^(-1/4), scaled and rounded, where C has
# 0.8^|i - j| at (i, j): roughly how three neighbouring pixels correlate in what the first three convolutions
# read.
DECORRELATION = ((0.939, -0.207, -0.08), (-0.207, 1.025, -0.207), (-0.08, -0.207, 0.939))
_OF_NINE = np.kron(DECORRELATION, DECORRELATION).astype(np.float32)  # both products as one, of nine weights


def prepare(recipe: str, model: CNNAE) -> None:
    """Change a model's random initial weights to those that a recipe starts from.

    "article" changes nothing. With "tuned", the model's first outputs are nearly as dark as the images of
    MNIST are on average, so the first steps need not learn to make most pixels black.
    """
    if recipe == TUNED:
        model.conv4.b.array.fill(_BIAS)


def make_optimizer(recipe: str, model: CNNAE) -> chainer.Optimizer:
    """The optimiser of a recipe, set up with a model.

    "article" is Adam with Chainer's defaults. With "tuned", `Muon` updates the weights of the first three
    convolutions and Adam all other parameters; the recipe also needs the extension `Schedule`.
    """
    if recipe == ARTICLE:
        return optimizers.Adam().setup(model)
    optimizer = optimizers.Adam(alpha=_PEAK).setup(model)
    for convolution in (model.conv1, model.conv2, model.conv3):
        convolution.W.update_rule = Muon(optimizer.hyperparam)
    optimizer.hyperparam.muon_ratio = _MUON_PEAK / _PEAK
    return optimizer


class Muon(UpdateRule):
    """Momentum SGD whose update is orthogonalised: all its singular values become about 1.

    The momentum of the gradients is taken as a matrix M with a row for each output channel. The update is
    orthogonalise(M P) P, where P multiplies each kernel of 3 x 3 weights by `DECORRELATION` from the left and
    from the right. (That is steepest descent where the size of an update U is the largest singular value of
    U times the inverse of P. With P = 1 it is Muon as published.)

    Parameters
    ----------
    hyperparam : Hyperparameter
        An Adam's. Muon's rate is its ``alpha`` times its ``muon_ratio``.
    """

    def __init__(self, hyperparam: chainer.optimizer.Hyperparameter) -> None:
        super().__init__(hyperparam)

    def init_state(self, param: chainer.Parameter) -> None:
        self.state["momentum"] = backend.get_array_module(param.array).zeros_like(param.array)

    def update_core(self, param: chainer.Parameter) -> None:
        if param.grad is None:
            return
        momentum = self.state["momentum"]
        momentum *= MOMENTUM
        momentum += param.grad
        rows, columns = len(momentum), momentum[0].size
        with _one_thread(momentum):
            matrix = decorrelate(param.grad + MOMENTUM * momentum).reshape(rows, columns)
            update = decorrelate(orthogonalise(matrix).reshape(momentum.shape))
        rate = muon_rate(self.hyperparam) * math.sqrt(max(1, rows / columns))
        array: Any = param.array
        array -= np.float32(rate) * update


def muon_rate(hyperparam: chainer.optimizer.Hyperparameter) -> float:
    """Muon's rate, which rises and falls with Adam's."""
    return hyperparam.alpha * hyperparam.muon_ratio


def _one_thread(array: NdArray) -> AbstractContextManager[object]:
    """Limit NumPy's BLAS to one thread, if the array is a NumPy array.

    The matrices are small, so more threads gain nothing, and the threads of BLAS would keep cores busy that
    the engine's threads need.
    """
    return _blas().limit(limits=1, user_api="blas") if isinstance(array, np.ndarray) else nullcontext()


@functools.cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController  # finds only libraries that are loaded already

    return ThreadpoolController()


def decorrelate(kernels: NdArray) -> NdArray:
    """Multiply kernels by `DECORRELATION` from the left and from the right.

    Parameters
    ----------
    kernels : ndarray of float32, shape (M, N, 3, 3)
        NumPy or CuPy.

    Returns
    -------
    ndarray of float32, shape (M, N, 3, 3)
    """
    factor = backend.get_array_module(kernels).asarray(_OF_NINE)
    return (kernels.reshape(-1, 9) @ factor).reshape(kernels.shape)


def orthogonalise(matrix: NdArray) -> NdArray:
    """Roughly the nearest matrix whose singular values are all 1.

    Parameters
    ----------
    matrix : ndarray of float32, shape (M, N)
        NumPy or CuPy.

    Returns
    -------
    ndarray of float32, shape (M, N)
        It has the singular vectors of `matrix`. Its singular values are between 0.7 and 1.2 where those of
        `matrix` are not tiny.
    """
    xp = backend.get_array_module(matrix)
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (xp.linalg.norm(x) + 1e-7)
    # Each iteration multiplies x by a polynomial of x xᵀ. All of them are computed before x is multiplied:
    # x xᵀ is much smaller than x, and after an iteration it follows from the polynomial.
    square, whole = x @ x.T, None
    scaled_identity = a * xp.eye(len(square), dtype=x.dtype)
    for i in range(ITERATIONS):
        factor = b * square + c * (square @ square) + scaled_identity
        whole = factor if whole is None else factor @ whole
        if i < ITERATIONS - 1:
            square = factor @ square @ factor
    x = whole @ x
    return x.T if tall else x


class Schedule(training.Extension):
    """Trainer extension that prepares each step of "tuned".

    Adam's alpha rises linearly to its peak for a fifth of the run, but for at most an epoch of MNIST. Then it
    falls linearly to zero. (L. N. Smith and N. Topin, "Super-Convergence: Very Fast Training of Neural
    Networks Using Large Learning Rates", 2018.) While it rises, batch normalisation takes the statistics of
    each batch. After that it takes the running ones, as in evaluation, and they stay as they are: those of a
    small batch differ from those of the next, and the network would have to learn in spite of that.

    With fixed statistics, a channel whose ReLU is never positive any more stays dead, and the longer Adam's
    alpha is high, the more channels end so. Beyond ten epochs of MNIST, its peak is therefore in inverse
    proportion to the length of the run. The peak of Muon's rate is the same for all lengths.

    All this follows from the iteration alone, so a snapshot does not hold it. ``chainer.config.train`` is
    False for the steps with running statistics. When the run ends, it is again what it was before.

    Parameters
    ----------
    iterations : int
        The number of iterations of the whole run.
    """

    name = "Schedule"  # type: ignore[assignment]
    trigger = (1, "iteration")

    def __init__(self, iterations: int) -> None:
        self._iterations = iterations
        self._warm_up = min(_WARM_UP, _LONGEST_WARM_UP / iterations)
        self._peak = _PEAK / max(1, iterations / _LONGEST_AT_PEAK)

    def initialize(self, trainer: training.Trainer) -> None:
        self._train = chainer.config.train
        trainer.updater.get_optimizer("main").hyperparam.muon_ratio = _MUON_PEAK / self._peak
        self(trainer)

    def __call__(self, trainer: training.Trainer) -> None:
        progress = (trainer.updater.iteration + 1) / self._iterations  # at the end of the next step
        trainer.updater.get_optimizer("main").alpha = self._peak * rise_and_fall(progress, self._warm_up)
        chainer.config.train = progress <= self._warm_up

    def finalize(self) -> None:
        chainer.config.train = self._train


def rise_and_fall(progress: float, warm_up: float) -> float:
    """The rate, as a fraction of its peak, at a fraction of the run in (0, 1]; it rises until `warm_up`."""
    return min(progress / warm_up, (1 - progress) / (1 - warm_up))
