"""A model's arrays as views of the few vectors that the kernels read and write.

Parameters, gradients, running statistics and Adam's moments stay where Chainer keeps them, under the same
names; only their arrays become views. So all code that reads the model works as before.
"""

from __future__ import annotations

import chainer
import numpy as np
from chainer.optimizers import adam

from srmnist.engine.gpu import plan
from srmnist.engine.gpu.device import Device
from srmnist.engine.network import SHAPES, are_float32, is_shared, normalisations, parameters
from srmnist.engine.rules import is_plain_adam, is_plain_rule
from srmnist.training.recipes import Muon

# The vectors that hold what a rule keeps, and its names there.
_STATES = {adam.AdamRule: {"m": "m", "v": "v"}, Muon: {"m": "momentum"}}
_BY_MUON = ("/conv1/W", "/conv2/W", "/conv3/W")


def computes(model: chainer.Chain) -> bool:
    """Whether the kernels compute such a model's loss and gradients: CNNAE in float32."""
    return are_float32(parameters(model)) and not any(map(is_shared, normalisations(model)))


def updates(optimizer: chainer.Optimizer) -> bool:
    """Whether the kernels make this optimiser's update: a recipe's, of the eleven parameters, no hooks."""
    rules = {name: parameter.update_rule for name, parameter in optimizer.target.namedparams()}
    by_muon = _BY_MUON if has_muon(optimizer) else ()
    return (
        is_plain_adam(optimizer)
        and len(rules) == len(SHAPES)
        and all(
            is_plain_rule(rule, optimizer, Muon if name in by_muon else adam.AdamRule)
            for name, rule in rules.items()
        )
    )


def has_muon(optimizer: chainer.Optimizer) -> bool:
    """Whether some parameter is updated by Muon."""
    return any(isinstance(parameter.update_rule, Muon) for parameter in optimizer.target.params())


class Vectors:
    """The vectors of a model, for which `computes` holds, that an optimiser is set up with.

    Making them moves the model's arrays into the vectors. Do not replace these arrays afterwards; their
    contents may change.

    Parameters
    ----------
    device : Device
        Where the model is.
    optimizer : Optimizer
        What its rules keep becomes views, too, where they are Adam's or Muon's.

    Attributes
    ----------
    arrays : dict of str to ndarray of float32
        The vectors by their names in `plan`.
    exchanged : Link
        One parameter, whose ``grad`` is all that several processes average after a step: gradients, running
        statistics and loss, which are parts of one vector.
    """

    def __init__(self, device: Device, optimizer: chainer.Optimizer) -> None:
        self.device, self.optimizer, self.model = device, optimizer, optimizer.target
        self.arrays = {name: device.empty(plan.COUNT, np.float32) for name in ("parameters", "m", "v")}
        parts = {"gradient": plan.COUNT, "loss": 1}
        parts |= {f"average{layer}": 2 * channels for layer, channels in enumerate(plan.CHANNELS, 1)}
        whole, at = device.empty(sum(parts.values()), np.float32), 0
        for name, size in parts.items():
            self.arrays[name] = whole[at : at + size]
            at += size
        self.exchanged = chainer.Link()
        with self.exchanged.init_scope():
            self.exchanged.whole = chainer.Parameter(whole)
        self.exchanged.whole.grad = whole
        pieces = {name: plan.split(self.arrays[name]) for name in ("parameters", "gradient", "m", "v")}
        self._gradients = pieces["gradient"]
        for i, parameter in enumerate(parameters(self.model)):
            rule = parameter.update_rule
            for vector, name in _STATES.get(type(rule), {}).items():
                rule._init_states(parameter)
                pieces[vector][i][...] = rule.state[name]
                rule.state[name] = pieces[vector][i]
            pieces["parameters"][i][...] = parameter.array
            parameter.array = pieces["parameters"][i]
        for layer, link in enumerate(normalisations(self.model), 1):
            views = self.arrays[f"average{layer}"].reshape(2, -1)
            for name, view in zip(("avg_mean", "avg_var"), views, strict=True):
                view[...] = getattr(link, name)
                setattr(link, name, view)

    def give_gradients(self) -> None:
        """Let each parameter's ``grad`` be a view of "gradient"."""
        for parameter, gradient in zip(parameters(self.model), self._gradients, strict=True):
            parameter.grad = gradient
