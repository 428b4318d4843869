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
    article's code. It does not average over the pixels that it skips, and it is not what ``cv2.resize``
    computes (``align_corners=False``).

    Parameters
    ----------
    images : ndarray of float32, shape (N, C, H, W)
        NumPy or CuPy, any H and W.
    size : (int, int) or int, default (10, 10)
        Height and width to shrink to; one number stands for both.

    Returns
    -------
    ndarray of float32, shape (N, C, H, W)
        On the same device as `images`, in the same value range.

    Raises
    ------
    ValueError
        If `images` is not a float32 array with four axes, or `size` is smaller than 1.

    References
    ----------
    kzkadc, "ディープラーニングで簡単な超解像をやってみた", section 低画質データの作成.
    """
    shrunk = shrink(images, size)
    height, width = images.shape[2:]
    return enlarge(shrunk, (height, width))


def shrink(images: Array, size: int | tuple[int, int] = (10, 10)) -> Array:
    """The first half of `degrade`: images (N, C, H, W) as (N, C, *size)."""
    return _resize(images, (size, size) if isinstance(size, int) else size)


def enlarge(images: Array, size: tuple[int, int]) -> Array:
    """The second half of `degrade`: the inverse of `shrink`, as far as there is one."""
    return _resize(images, size)


def _resize(images: Array, size: tuple[int, int]) -> Array:
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size must be at least 1×1, not {height}×{width}")
    if images.ndim != 4 or images.dtype != "float32":
        raise ValueError(f"images must be float32 (N, C, H, W), not {images.dtype} {images.shape}")
    xp = backend.get_array_module(images)
    resized = xp.empty((*images.shape[:2], height, width), images.dtype)
    with chainer.no_backprop_mode():
        for start in range(0, len(images), _CHUNK):
            chunk = images[start : start + _CHUNK]
            resized[start : start + _CHUNK] = F.resize_images(chunk, (height, width)).array
    return resized


def check_size(size: int, images: np.ndarray) -> None:
    """Refuse a ``--size`` that would not shrink images (…, H, W).

    Raises
    ------
    UserError
        If `size` is larger than H or W.
    """
    height, width = images.shape[-2:]
    if size > min(height, width):
        raise UserError(f"--size {size}: the images are {height}×{width} already")
