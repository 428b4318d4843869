"""The network as one Chainer function: forward and backward of `CNNAE.forward` on a CUDA device.

It serves evaluation and training loops that a user writes. `srmnist.engine.gpu.step` trains faster.
"""

from __future__ import annotations

from collections.abc import Iterable

import chainer
from chainer import function_node

from srmnist.engine.gpu import device, plan
from srmnist.engine.network import differentiable_gradients, normalisations

SERVES_RANKS = False  # Chainer's functions run where several processes share statistics


class Restore(function_node.FunctionNode):
    """CNNAE from its input to the sigmoid.

    Inputs are x (B, 1, H, W) and the eleven parameters in the order of `network.parameters`, all float32
    arrays of one device; the output is (B, 1, H, W).
    """

    def __init__(self, model: chainer.Chain) -> None:
        super().__init__()
        self._links = normalisations(model)
        self._train = chainer.config.train

    def forward(self, inputs):
        x, *parameters = inputs
        self._device = device.current()
        self._shape = plan.Shape(len(x), *x.shape[2:])
        xp = self._device.xp
        update = self._train and not chainer.config.in_recomputing
        layers = tuple(plan.Normalisation(link.eps, link.decay) for link in self._links)
        launches = plan.forward(self._shape, layers, self._train, update)
        self._arrays = {
            "x": xp.ascontiguousarray(x),
            "parameters": xp.concatenate([parameter.ravel() for parameter in parameters]),
        }
        for layer, link in enumerate(self._links, 1):
            self._arrays[f"average{layer}"] = xp.concatenate([link.avg_mean, link.avg_var])
        self._run(launches)
        if update:
            for layer, link in enumerate(self._links, 1):
                link.avg_mean[...], link.avg_var[...] = self._arrays[f"average{layer}"].reshape(2, -1)
        y = self._arrays["y"].reshape(x.shape)
        if chainer.config.enable_backprop:
            self.retain_inputs(range(len(inputs)))
        else:
            del self._arrays
        return (y,)

    def backward(self, indexes, grad_outputs):
        if 0 in indexes or chainer.config.enable_backprop:
            double = bool(chainer.config.enable_backprop)
            inputs = self.get_retained_inputs()
            with chainer.force_backprop_mode():
                return differentiable_gradients(
                    self._links, self._train, inputs, indexes, grad_outputs, double
                )
        self._arrays["gy"] = self._device.xp.ascontiguousarray(grad_outputs[0].array)
        self._run([*plan.sigmoid_gradient(self._shape), *plan.backward(self._shape, self._train)])
        pieces = plan.split(self._arrays.pop("gradient"))  # the caller's now: a second backward takes another
        return tuple(chainer.Variable(pieces[i - 1]) for i in indexes)

    def _run(self, launches: Iterable[plan.Launch]) -> None:
        sizes = plan.buffers(self._shape)
        for name in plan.names(launches) - set(self._arrays):
            self._arrays[name] = self._device.empty(*sizes[name])
        self._device.bind(launches, self._arrays)()


def holds(array: object) -> bool:
    """Whether an array is one that this engine can take: on the current device."""
    return device.current().holds(array)
