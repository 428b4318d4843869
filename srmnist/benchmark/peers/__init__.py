"""The same network in other libraries, each as its users would write it for speed; none is a dependency.

Each module has a function ``make(name, model, inputs, targets, gpu, batch)`` that gives a
`srmnist.benchmark.variants.Variant` with the weights of `model`. All train with Chainer's constants: Adam
with a rate of 0.001 and an epsilon of 1e-8, batch normalisation with an epsilon of 2e-5 and a decay of 0.9.
"""

from __future__ import annotations

import numpy as np

from srmnist.model import CNNAE

RATE, BETA1, BETA2, ADAM_EPSILON = 1e-3, 0.9, 0.999, 1e-8
EPSILON, DECAY = 2e-5, 0.9


def channels_last(images: np.ndarray) -> np.ndarray:
    """Images of one channel (N, 1, H, W) as (N, H, W, 1), without a copy."""
    return images.reshape(*images.shape[0::2], images.shape[3], 1)


def channels_last_weights(model: CNNAE) -> dict[str, np.ndarray]:
    """Copies of the parameters by the article's names; convolutions have (3, 3, inputs, outputs)."""
    return {
        name[1:]: parameter.array.transpose(2, 3, 1, 0).copy()
        if name.endswith("W")
        else parameter.array.copy()
        for name, parameter in model.namedparams()
    }
