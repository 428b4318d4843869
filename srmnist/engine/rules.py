"""Which optimisers the engines can take the place of: Chainer's Adam, as it is."""

from __future__ import annotations

import chainer
from chainer import optimizers
from chainer.optimizers import adam


def is_plain_adam(optimizer: chainer.Optimizer) -> bool:
    """Whether an optimiser is Chainer's Adam without hooks, variants and loss scaling."""
    hyperparam = optimizer.hyperparam
    return (
        type(optimizer) is optimizers.Adam
        and not (hyperparam.amsgrad or hyperparam.adabound or optimizer._loss_scale)
        and not _has_hooks(optimizer)
    )


def is_plain_rule(
    rule: chainer.UpdateRule, optimizer: chainer.Optimizer, kind: type[chainer.UpdateRule] = adam.AdamRule
) -> bool:
    """Whether a parameter's rule is of that kind, without hooks, values or a number of steps of its own."""
    return (
        type(rule) is kind
        and rule.enabled
        and rule.t == optimizer.t
        and not _has_hooks(rule)
        and rule.hyperparam.parent is optimizer.hyperparam
        and len(vars(rule.hyperparam)) == 1  # that parent: no value of its own
    )


def _has_hooks(hookable: chainer.Optimizer | chainer.UpdateRule) -> bool:
    hooks = hookable._hookable
    return bool(hooks._pre_update_hooks or hooks._post_update_hooks)
