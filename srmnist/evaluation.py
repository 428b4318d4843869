"""Evaluation: what a trained model makes of degraded images."""

import chainer
import numpy as np

from srmnist.model import CNNAE


def restore(model: CNNAE, degraded: np.ndarray, batchsize: int = 256) -> np.ndarray:
    """Restore any number of images in evaluation mode, a batch at a time.

    Parameters
    ----------
    model : CNNAE
    degraded : ndarray of float32, shape (N, 1, H, W)
        In main memory; the batches go to the model's device and come back.
    batchsize : int, default 256
        Images held by the network at once.

    Returns
    -------
    ndarray of float32, shape (N, 1, H, W)
    """
    restored = np.empty_like(degraded)
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        for start in range(0, len(degraded), batchsize):
            batch = slice(start, start + batchsize)
            h = model.forward(model.device.send(degraded[batch]))
            restored[batch] = chainer.get_device("@numpy").send(h.array)
    return restored


def squared_errors(images: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Mean squared error of each image, accumulated in float64.

    Parameters
    ----------
    images, originals : ndarray of float32, shape (N, 1, H, W)

    Returns
    -------
    ndarray of float64, shape (N,)
    """
    return np.mean((images - originals) ** 2, axis=(1, 2, 3), dtype=np.float64)
