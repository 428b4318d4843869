"""The degradation: shrink an image, then enlarge it back."""

from typing import TypeVar

import chainer
import chainer.functions as F
import numpy as np
from chainer import backend
from chainer.types import NdArray

from srmnist.system.errors import UserError

Array = TypeVar("Array", bound=NdArray)  # NumPy arrays in, NumPy arrays out, and the same for CuPy's

# Images resized at a time. F.resize_images gathers four neighbours of every output pixel, so 60,000 images
# at once would take gigabytes; 512 take 13 MB.
_CHUNK = 512


def degrade(images: Array, size: int | tuple[int, int] = (10, 10)) -> Array:
    """Shrink images, then enlarge them back: the network's input.

    Both times ``chainer.functions.resize_images`` samples bilinearly with ``align_corners=True``, as in the
    article's code. It does not average over the pixels that it skips. ``cv2.resize`` computes something else
    (``align_corners=False``).

    Parameters
    ----------
    images : ndarray of float32, shape (N, C, H, W)
        NumPy or CuPy, any H and W. Also of Chainer's own dtype, if CHAINER_DTYPE sets another.
    size : (int, int) or int, default (10, 10)
        Height and width to shrink to; one number stands for both.

    Returns
    -------
    ndarray of float32, shape (N, C, H, W)
        On the same device as `images`, of the same dtype, in the same value range.

    Raises
    ------
    ValueError
        If `images` is not such an array, or if `size` is smaller than 1.

    References
    ----------
    kzkadc, "ディープラーニングで簡単な超解像をやってみた", section 低画質データの作成.
    """
    shrunk = shrink(images, size)
    height, width = images.shape[2:]
    return enlarge(shrunk, (height, width))


def shrink(images: Array, size: int | tuple[int, int] = (10, 10)) -> Array:
    """Shrink images (N, C, H, W) to (N, C, *size): the first half of `degrade`."""
    return _resize(images, (size, size) if isinstance(size, int) else size)


def enlarge(images: Array, size: tuple[int, int]) -> Array:
    """Enlarge images (N, C, h, w) to (N, C, *size): the second half of `degrade`."""
    return _resize(images, size)


def _resize(images: Array, size: tuple[int, int]) -> Array:
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size must be at least 1×1, not {height}×{width}")
    if images.ndim != 4 or not is_float(images):
        raise ValueError(f"images must be float32 (N, C, H, W), not {images.dtype} {images.shape}")
    xp = backend.get_array_module(images)
    resized = xp.empty((*images.shape[:2], height, width), images.dtype)
    with chainer.no_backprop_mode():
        for start in range(0, len(images), _CHUNK):
            # F.resize_images takes float32 only.
            chunk = images[start : start + _CHUNK].astype(np.float32, copy=False)
            resized[start : start + _CHUNK] = F.resize_images(chunk, (height, width)).array
    return resized


def is_float(images: NdArray) -> bool:
    """Whether images are float32, or of the dtype that Chainer computes in (CHAINER_DTYPE)."""
    return images.dtype in (np.float32, chainer.get_dtype())


def check_size(size: int, images: np.ndarray) -> None:
    """Refuse a ``--size`` that does not shrink images (…, H, W).

    Raises
    ------
    UserError
        If `size` is larger than H or W.
    """
    height, width = images.shape[-2:]
    if size > min(height, width):
        raise UserError(f"--size {size}: the images are {height}×{width} already")
