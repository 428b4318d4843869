"""Restoration: load trained weights and restore images with the model."""

from pathlib import Path

import chainer
from chainer import backend

from srmnist.degradation import Array, is_float
from srmnist.model import CNNAE
from srmnist.system.device import device_errors, device_number, select_device
from srmnist.system.errors import UserError
from srmnist.weights import load_weights


def restore(images: Array, model: CNNAE, batchsize: int = 256) -> Array:
    """Restore any number of degraded images in evaluation mode, a batch at a time.

    Parameters
    ----------
    images : ndarray of float32, shape (N, 1, H, W)
        Degraded images (see `srmnist.degrade`), intensities in [0, 1]; NumPy or CuPy, any H and W.
    model : CNNAE
        With trained weights (see `srmnist.load_weights`), on any device.
    batchsize : int, default 256
        Images on the model's device at once.

    Returns
    -------
    ndarray of float32, shape (N, 1, H, W)
        Restored images, intensities in (0, 1), where `images` were: in main memory or on the same GPU.

    Raises
    ------
    ValueError
        If `images` is not a float32 array of such a shape.
    UserError
        If the model's GPU is out of memory, or fails.
    """
    if images.ndim != 4 or images.shape[1] != 1 or not is_float(images):
        raise ValueError(f"images must be float32 (N, 1, H, W), not {images.dtype} {images.shape}")
    device = backend.get_device_from_array(images)
    restored = device.xp.empty_like(images)
    dtype = model.conv1.W.dtype  # CHAINER_DTYPE, when the model was made
    with (
        chainer.using_config("train", False),
        chainer.no_backprop_mode(),
        device_errors(device_number(model.device)),
    ):
        for start in range(0, len(images), batchsize):
            batch = slice(start, start + batchsize)
            h = model.forward(model.device.send(images[batch].astype(dtype, copy=False)))
            restored[batch] = device.send(h.array)
    return restored


def load_model(path: Path, gpu: int = -1) -> CNNAE:
    """The trained network, read from a file and sent to a device.

    Parameters
    ----------
    path : Path
        Weights, as ``--model`` names them.
    gpu : int, default -1
        CUDA device number, as ``--gpu`` names it; negative is the CPU.

    Raises
    ------
    UserError
        If there is no such file or device, or as `srmnist.load_weights` does.
    """
    if not path.exists():
        raise UserError(f"--model: there is no {path}; scripts/train.py writes results/model.npz")
    device = select_device(gpu)
    model = load_weights(path, CNNAE())
    with device_errors(gpu):
        model.to_device(device)
    return model
