"""A whole training step without Chainer's graph."""

from __future__ import annotations

import chainer
import numpy as np

from srmnist.engine.cpu import adam
from srmnist.engine.cpu.step import Step
from srmnist.engine.network import Inputs, normalisations, parameters


def update(optimizer: chainer.Optimizer, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Do what ``optimizer.update(model, x, t)`` does with `CNNAE`, to the same bits.

    Gradients are left in the parameters, and the hooks of the optimiser find them there.

    Parameters
    ----------
    optimizer : Optimizer
        Set up with the model, for which and for `x` an engine must apply. ``optimizer.update()`` must take
        gradients that are already computed, as all of Chainer's do.
    x, t : ndarray of float32, shape (B, 1, H, W)
        Degraded images and their originals.

    Returns
    -------
    ndarray of float32, shape ()
        The loss.
    """
    model = optimizer.target
    own = parameters(model)
    inputs = Inputs.of([x, *(parameter.array for parameter in own)])
    step = Step(normalisations(model), chainer.config.train)
    y = step.forward(inputs)
    loss, gy = _squared_error(y, t)
    _, *gradients = step.gradients(inputs, y, gy).flat()
    for parameter, gradient in zip(own, gradients, strict=True):
        parameter.grad = np.ascontiguousarray(gradient)
    adam.update(optimizer)
    return loss


def _squared_error(y: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The loss and the gradient of `y`, as ``chainer.functions.mean_squared_error`` computes them."""
    difference = y - t
    flat = difference.ravel()
    loss = np.array(flat.dot(flat) / flat.size, np.float32)
    return loss, difference * np.float32(2.0 / flat.size)
