"""The network in JAX: one compiled function for a training step, one for restoring."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from srmnist.benchmark import peers
from srmnist.benchmark.variants import Chosen, Variant
from srmnist.model import CNNAE

_LAYOUT = ("NHWC", "HWIO", "NHWC")  # faster than channels first on the CPU
Arrays = dict[str, Any]


def _restore(weights: Arrays, averages: Arrays, h: jax.Array, train: bool) -> tuple[jax.Array, Arrays]:
    """Images (B, H, W, 1), restored, and the new running statistics."""
    convolve = partial(
        jax.lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=_LAYOUT
    )
    new = {}
    for i in (1, 2, 3):
        h = convolve(h, weights[f"conv{i}/W"])
        mean, var = averages[f"bn{i}/mean"], averages[f"bn{i}/var"]
        if train:
            of_batch = h.mean((0, 1, 2)), h.var((0, 1, 2))
            new[f"bn{i}/mean"], new[f"bn{i}/var"] = (
                peers.DECAY * old + (1 - peers.DECAY) * now
                for old, now in zip((mean, var), of_batch, strict=True)
            )
            mean, var = of_batch
        scale = weights[f"bn{i}/gamma"] * jax.lax.rsqrt(var + peers.EPSILON)
        h = jax.nn.relu(h * scale + (weights[f"bn{i}/beta"] - mean * scale))
    return jax.nn.sigmoid(convolve(h, weights["conv4/W"]) + weights["conv4/b"]), new


@partial(jax.jit, donate_argnums=0)
def _step(state: Arrays, x: jax.Array, t: jax.Array) -> tuple[Arrays, jax.Array]:
    """One step of Adam; the memory of the old state is used for the new one."""

    def loss_of(weights: Arrays) -> tuple[jax.Array, Arrays]:
        restored, averages = _restore(weights, state["averages"], x, True)
        return jnp.mean((restored - t) ** 2), averages

    (loss, averages), gradients = jax.value_and_grad(loss_of, has_aux=True)(state["weights"])
    count = state["count"] + 1
    rate = peers.RATE * jnp.sqrt(1 - peers.BETA2**count) / (1 - peers.BETA1**count)

    def decayed(beta: float, old: Arrays, new: Arrays) -> Arrays:
        return jax.tree.map(lambda a, b: beta * a + (1 - beta) * b, old, new)

    m = decayed(peers.BETA1, state["m"], gradients)
    v = decayed(peers.BETA2, state["v"], jax.tree.map(jnp.square, gradients))
    weights = jax.tree.map(
        lambda w, m, v: w - rate * m / (jnp.sqrt(v) + peers.ADAM_EPSILON), state["weights"], m, v
    )
    return {"weights": weights, "averages": averages, "m": m, "v": v, "count": count}, loss


@jax.jit
def _restored(weights: Arrays, averages: Arrays, x: jax.Array) -> jax.Array:
    return _restore(weights, averages, x, False)[0]


def make(
    name: str, model: CNNAE, inputs: np.ndarray, targets: np.ndarray, gpu: int = -1, batch: int = 64
) -> Variant:
    """JAX's variant on the CPU."""
    weights = {name: jnp.asarray(array) for name, array in peers.channels_last_weights(model).items()}
    averages = {}
    for i in (1, 2, 3):
        averages[f"bn{i}/mean"] = jnp.zeros_like(weights[f"bn{i}/beta"])
        averages[f"bn{i}/var"] = jnp.ones_like(weights[f"bn{i}/beta"])
    zeros = {kind: jax.tree.map(jnp.zeros_like, weights) for kind in ("m", "v")}
    state = {"weights": weights, "averages": averages, "count": jnp.float32(0), **zeros}
    data = [peers.channels_last(images) for images in (inputs, targets)]

    def step(chosen: Chosen) -> jax.Array:
        nonlocal state
        state, loss = _step(state, *(images[chosen] for images in data))
        return loss.block_until_ready()

    def evaluate(chosen: Chosen) -> jax.Array:
        return _restored(state["weights"], state["averages"], data[0][chosen]).block_until_ready()

    return Variant(step, evaluate)
