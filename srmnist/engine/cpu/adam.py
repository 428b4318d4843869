"""Chainer's Adam in compiled code, to the same bits."""

from __future__ import annotations

from typing import Any

import chainer
import numpy as np

from srmnist.engine.cpu.compiled import compiled
from srmnist.engine.network import SHAPES
from srmnist.engine.rules import is_plain_adam, is_plain_rule


def update(optimizer: chainer.Optimizer) -> None:
    """Do what ``optimizer.update()`` does: update the parameters by their gradients.

    If the optimiser is Adam as `rules` says, its parameters are updated in compiled code; other parameters
    are updated by their own rules.
    """
    own = list(optimizer.target.params())
    if len(own) != len(SHAPES) or not is_plain_adam(optimizer) or not _has_python_numbers(optimizer):
        optimizer.update()
        return
    plain = [_can_take(parameter, optimizer) for parameter in own]
    optimizer.t += 1
    factors = _factors(optimizer)
    for parameter, is_plain in zip(own, plain, strict=True):
        if is_plain:
            _step(parameter, factors)
        else:
            parameter.update()


def _has_python_numbers(optimizer: Any) -> bool:
    """Whether float32 arrays stay float32 when multiplied: NumPy's own numbers may give float64."""
    hyperparam = optimizer.hyperparam
    numbers = (getattr(hyperparam, name) for name in ("alpha", "beta1", "beta2", "eta", "weight_decay_rate"))
    return type(hyperparam.eps) is float and all(type(number) in (float, int) for number in numbers)


def _can_take(parameter: chainer.Parameter, optimizer: chainer.Optimizer) -> bool:
    rule = parameter.update_rule
    if not is_plain_rule(rule, optimizer) or rule.state is None:
        return False
    arrays = (parameter.array, parameter.grad, rule.state["m"], rule.state["v"])
    return all(
        type(array) is np.ndarray and array.dtype == np.float32 and array.flags.carray for array in arrays
    )


def _factors(optimizer: Any) -> tuple[np.float32, ...]:
    """The factors of a step, the same for all rules that are as `rules` says."""
    own = optimizer.hyperparam
    kept = 1.0 - own.eta * own.weight_decay_rate
    factors = (optimizer.alpha_t, 1.0 - own.beta1, 1.0 - own.beta2, own.eps, kept, -own.eta)
    # NumPy, too, rounds a Python number to float32 before it multiplies an array.
    return tuple(map(np.float32, factors))


def _step(parameter: chainer.Parameter, factors: tuple[np.float32, ...]) -> None:
    rule = parameter.update_rule
    rule.t += 1
    arrays = (parameter.array, parameter.grad, rule.state["m"], rule.state["v"])
    _update(*(array.reshape(-1) for array in arrays), *factors)


@compiled
def _update(parameter, gradient, m, v, alpha, of_gradient, of_square, eps, kept, minus_eta):
    """One step for flat arrays of one length, in the order of operations of Chainer's ``AdamRule``."""
    for i in range(len(parameter)):
        g = gradient[i]
        m[i] += of_gradient * (g - m[i])
        v[i] += of_square * (g * g - v[i])
        step = alpha / (np.sqrt(v[i]) + eps)
        parameter[i] = kept * parameter[i] + minus_eta * (step * m[i])
