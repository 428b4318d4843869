"""The network in TensorFlow: as a graph (``tf.function``), and compiled by XLA."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from srmnist.benchmark import peers
from srmnist.benchmark.variants import XLA, Chosen, Variant
from srmnist.model import CNNAE


class _Network(tf.Module):
    """The layers with TensorFlow's fused normalisation, which is faster here than Keras's layer."""

    def __init__(self, model: CNNAE) -> None:
        super().__init__()
        for name, array in peers.channels_last_weights(model).items():
            setattr(self, name.replace("/", "_"), tf.Variable(array))
        for i in (1, 2, 3):
            channels = self._of("bn", i, "beta").shape
            setattr(self, f"bn{i}_mean", tf.Variable(tf.zeros(channels), trainable=False))
            setattr(self, f"bn{i}_var", tf.Variable(tf.ones(channels), trainable=False))

    def _of(self, link: str, i: int, name: str) -> tf.Variable:
        return getattr(self, f"{link}{i}_{name}")

    def restore(self, h: tf.Tensor, train: bool) -> tf.Tensor:
        """Images (B, H, W, 1) to images of the same shape."""
        for i in (1, 2, 3):
            h = tf.nn.conv2d(h, self._of("conv", i, "W"), 1, "SAME")
            gamma, beta, mean, var = (self._of("bn", i, name) for name in ("gamma", "beta", "mean", "var"))
            own = {"is_training": True} if train else {"mean": mean, "variance": var, "is_training": False}
            h, m, v = tf.compat.v1.nn.fused_batch_norm(h, gamma, beta, epsilon=peers.EPSILON, **own)
            if train:
                for average, of_batch in ((mean, m), (var, v)):
                    average.assign(peers.DECAY * average + (1 - peers.DECAY) * of_batch)
            h = tf.nn.relu(h)
        return tf.sigmoid(tf.nn.bias_add(tf.nn.conv2d(h, self.conv4_W, 1, "SAME"), self.conv4_b))


def make(
    name: str, model: CNNAE, inputs: np.ndarray, targets: np.ndarray, gpu: int = -1, batch: int = 64
) -> Variant:
    """A variant of TensorFlow on the CPU, with channels last, which is the only layout of its CPU part."""
    network = _Network(model)
    variables = network.trainable_variables
    optimizer = tf.keras.optimizers.Adam(peers.RATE, peers.BETA1, peers.BETA2, epsilon=peers.ADAM_EPSILON)
    optimizer.build(variables)

    @tf.function(jit_compile=name == XLA)
    def trained(x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(network.restore(x, True) - t))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    restored = tf.function(lambda x: network.restore(x, False), jit_compile=name == XLA)
    data = [peers.channels_last(images) for images in (inputs, targets)]

    def selected(chosen: Chosen) -> list[tf.Tensor]:
        return [tf.convert_to_tensor(images[chosen]) for images in data]

    return Variant(
        lambda chosen: trained(*selected(chosen)).numpy(),
        lambda chosen: restored(selected(chosen)[0]).numpy(),
    )
