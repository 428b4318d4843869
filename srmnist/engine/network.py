"""The network as its engines see it: its parameters in order, and its gradients as Chainer's own graph."""

from __future__ import annotations

from collections.abc import Sequence

import chainer
import chainer.functions as F
import numpy as np

SHAPES = [(16, 1, 3, 3), (16,), (16,), (32, 16, 3, 3), (32,), (32,), (64, 32, 3, 3), (64,), (64,),
          (1, 64, 3, 3), (1,)]  # fmt: skip


def parameters(model: chainer.Chain) -> list[chainer.Parameter]:
    """The model's eleven parameters, in the order in which the network uses them."""
    return [
        model.conv1.W, model.bn1.gamma, model.bn1.beta,
        model.conv2.W, model.bn2.gamma, model.bn2.beta,
        model.conv3.W, model.bn3.gamma, model.bn3.beta,
        model.conv4.W, model.conv4.b,
    ]  # fmt: skip


def normalisations(model: chainer.Chain) -> tuple[chainer.Link, ...]:
    """The model's three batch normalisations."""
    return model.bn1, model.bn2, model.bn3


def is_float32(model: chainer.Chain) -> bool:
    """Whether the eleven parameters are float32, of the article's shapes."""
    own = parameters(model)
    return [parameter.shape for parameter in own] == SHAPES and all(
        parameter.dtype == np.float32 for parameter in own
    )


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
    """Gradients as a graph, by Chainer's own functions: for gradients of gradients.

    Parameters
    ----------
    links : sequence of Link
        The three batch normalisations.
    train : bool
        Whether they were computed with the batch's own statistics.
    inputs : sequence of Variable
        x (B, 1, H, W), then the parameters.
    indexes : sequence of int
        Which inputs' gradients are asked for.
    grad_outputs : sequence of Variable
        The gradient of the output.
    enable_double_backprop : bool, default True
    """
    if train and any(map(is_shared, links)):
        raise NotImplementedError("no gradients of gradients where ranks share batch normalisation")
    h = inputs[0]
    for layer, link in enumerate(links):
        w, gamma, beta = inputs[1 + 3 * layer : 4 + 3 * layer]
        h = F.convolution_2d(h, w, pad=1)
        if train:
            h = F.batch_normalization(h, gamma, beta, eps=link.eps)
        else:
            h = F.fixed_batch_normalization(h, gamma, beta, link.avg_mean, link.avg_var, link.eps)
        h = F.relu(h)
    y = F.sigmoid(F.convolution_2d(h, *inputs[10:], pad=1))
    wanted = [inputs[i] for i in indexes]
    return chainer.grad([y], wanted, grad_outputs, enable_double_backprop=enable_double_backprop)
