"""The network as its engines see it: its parameters in order, and its gradients as a graph of functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import chainer
import chainer.functions as F
import numpy as np

SHAPES = [
    *[(16, 1, 3, 3), (16,), (16,)],
    *[(32, 16, 3, 3), (32,), (32,)],
    *[(64, 32, 3, 3), (64,), (64,)],
    *[(1, 64, 3, 3), (1,)],
]


class Layer(NamedTuple):
    """The parameters of one of the first three layers: weights, and those of its normalisation."""

    w: Any
    gamma: Any
    beta: Any


class Inputs(NamedTuple):
    """The inputs of an engine's function: their arrays, their variables or their gradients."""

    x: Any
    layers: tuple[Layer, ...]
    w4: Any
    bias: Any

    @classmethod
    def of(cls, flat: Sequence[Any]) -> Inputs:
        """Group x and the eleven parameters, given in the order of `parameters`."""
        return cls(flat[0], (Layer(*flat[1:4]), Layer(*flat[4:7]), Layer(*flat[7:10])), *flat[10:])

    def flat(self) -> list[Any]:
        """The same as one list: x, then the eleven parameters in the order of `parameters`."""
        return [self.x, *self.layers[0], *self.layers[1], *self.layers[2], self.w4, self.bias]


def parameters(model: chainer.Chain) -> list[chainer.Parameter]:
    """The model's eleven parameters, in the order in which the network uses them."""
    layers = zip((model.conv1, model.conv2, model.conv3), normalisations(model), strict=True)
    first_three = [parameter for conv, bn in layers for parameter in (conv.W, bn.gamma, bn.beta)]
    return [*first_three, model.conv4.W, model.conv4.b]


def normalisations(model: chainer.Chain) -> tuple[chainer.Link, ...]:
    """The model's three batch normalisations."""
    return model.bn1, model.bn2, model.bn3


def are_float32(own: Sequence[Any]) -> bool:
    """Whether the eleven parameters, or their arrays, are float32 and have the article's shapes."""
    return [each.shape for each in own] == SHAPES and all(each.dtype == np.float32 for each in own)


def is_shared(link: chainer.Link) -> bool:
    """Whether several processes share a layer's statistics: ChainerMN's MultiNodeBatchNormalization."""
    return hasattr(link, "comm")


def differentiable_gradients(
    links: Sequence[chainer.Link],
    train: bool,
    inputs: Sequence[chainer.Variable],
    indexes: Sequence[int],
    grad_outputs: Sequence[chainer.Variable],
    enable_double_backprop: bool = True,
) -> list[chainer.Variable]:
    """Gradients as a graph of Chainer's functions, so that gradients of gradients can be taken.

    Parameters
    ----------
    links : sequence of Link
        The three batch normalisations.
    train : bool
        Whether the normalisations used the batch's own statistics.
    inputs : sequence of Variable
        x (B, 1, H, W), then the eleven parameters.
    indexes : sequence of int
        The inputs whose gradients are wanted.
    grad_outputs : sequence of Variable
        The gradient of the output.
    enable_double_backprop : bool, default True

    Raises
    ------
    NotImplementedError
        If several processes share the statistics.
    """
    if train and any(map(is_shared, links)):
        raise NotImplementedError("no gradients of gradients where ranks share batch normalisation")
    own = Inputs.of(inputs)
    h = own.x
    for link, (w, gamma, beta) in zip(links, own.layers, strict=True):
        h = F.convolution_2d(h, w, pad=1)
        if train:
            h = F.batch_normalization(h, gamma, beta, eps=link.eps)
        else:
            h = F.fixed_batch_normalization(h, gamma, beta, link.avg_mean, link.avg_var, link.eps)
        h = F.relu(h)
    y = F.sigmoid(F.convolution_2d(h, own.w4, own.bias, pad=1))
    wanted = [inputs[i] for i in indexes]
    return chainer.grad([y], wanted, grad_outputs, enable_double_backprop=enable_double_backprop)
