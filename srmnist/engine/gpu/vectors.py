"""A model's arrays as views of the few vectors that the kernels read and write.

Parameters, gradients, running statistics and Adam's moments stay where Chainer keeps them, under the same
names: only that their arrays become views. So snapshots, figures and whatever else looks at the model go on
as before.
"""

from __future__ import annotations

import operator

import chainer
import numpy as np
from chainer import optimizers
from chainer.optimizers import adam
from chainer.types import NdArray

from srmnist.engine.gpu import plan
from srmnist.engine.gpu.machine import Machine
from srmnist.engine.network import SHAPES, is_float32, is_shared, normalisations, parameters


def computes(model: chainer.Chain) -> bool:
    """Whether the kernels compute such a model's loss and gradients: CNNAE in float32."""
    return is_float32(model) and not any(map(is_shared, normalisations(model)))


def updates(optimizer: chainer.Optimizer) -> bool:
    """Whether the kernels make this optimiser's update: plain Adam of the eleven parameters, no hooks."""
    hyperparam = optimizer.hyperparam
    rules = [parameter.update_rule for parameter in optimizer.target.params()]
    return (
        type(optimizer) is optimizers.Adam
        and not (hyperparam.amsgrad or hyperparam.adabound or optimizer._loss_scale)
        and not _has_hooks(optimizer)
        and len(rules) == len(SHAPES)
        and all(_is_plain(rule, optimizer) for rule in rules)
    )


def _has_hooks(hookable: chainer.Optimizer | chainer.UpdateRule) -> bool:
    hooks = hookable._hookable
    return bool(hooks._pre_update_hooks or hooks._post_update_hooks)


def _is_plain(rule: chainer.UpdateRule, optimizer: chainer.Optimizer) -> bool:
    return (
        type(rule) is adam.AdamRule
        and rule.enabled
        and rule.t == optimizer.t
        and not _has_hooks(rule)
        and rule.hyperparam.parent is optimizer.hyperparam
        and len(vars(rule.hyperparam)) == 1  # that parent: no value of its own
    )


class Vectors:
    """The vectors of a model, for which `computes` holds, that an optimiser is set up with.

    Parameters
    ----------
    machine : Machine
        Where the model is.
    optimizer : chainer.Optimizer
        Its moments become views, too, where it has Adam's.

    Attributes
    ----------
    gradients : list of ndarray of float32
        Views of the vector "gradient", in the shapes and the order of `network.parameters`; there from the
        first `attached` on.
    """

    def __init__(self, machine: Machine, optimizer: chainer.Optimizer) -> None:
        self.machine = machine
        self.optimizer = optimizer
        self._arrays: dict[str, NdArray] = {}
        self._held: list[object] = []

    @property
    def model(self) -> chainer.Chain:
        return self.optimizer.target

    def attached(self) -> dict[str, NdArray]:
        """The vectors by name, as `plan` has them.

        It is another dict, of new vectors, if any of the model's arrays has been replaced since the last
        call.
        """
        found = self._found()
        if len(found) != len(self._held) or not all(map(operator.is_, found, self._held)):
            self._attach()
            self._held = self._found()
        return self._arrays

    def _found(self) -> list[object]:
        """What must stay as it is for the vectors to hold the model's values."""
        found: list[object] = []
        for parameter in parameters(self.model):
            rule = parameter.update_rule
            state = rule.state or {}
            found += (parameter.array, rule, state.get("m"), state.get("v"))
        for link in normalisations(self.model):
            found += (link.avg_mean, link.avg_var)
        return found

    def _attach(self) -> None:
        """Move the model's arrays into vectors, and put views of these in their places."""
        empty = self.machine.empty
        self._arrays = {name: empty(plan.COUNT, np.float32) for name in ("parameters", "gradient", "m", "v")}
        pieces = {name: plan.split(vector) for name, vector in self._arrays.items()}
        self.gradients = pieces["gradient"]
        for i, parameter in enumerate(parameters(self.model)):
            rule = parameter.update_rule
            if isinstance(rule, adam.AdamRule):
                rule._init_states(parameter)
                for name in ("m", "v"):
                    pieces[name][i][...] = rule.state[name]
                    rule.state[name] = pieces[name][i]
            pieces["parameters"][i][...] = parameter.array
            parameter.array = pieces["parameters"][i]
        for layer, link in enumerate(normalisations(self.model), 1):
            average = empty(2 * len(link.avg_mean), np.float32)
            self._arrays[f"average{layer}"] = average
            for name, view in zip(("avg_mean", "avg_var"), average.reshape(2, -1), strict=True):
                view[...] = getattr(link, name)
                setattr(link, name, view)
