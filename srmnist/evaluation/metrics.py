"""Measures of a restored image: its error, its similarity to the original, whether its digit can be read."""

from typing import Any, overload

import numpy as np
from chainer import backend
from chainer.types import NdArray

# Images compared with all neighbours at a time. 1,000 × 20,000 distances take 80 MB; three such arrays exist.
_CHUNK = 1000

# The smallest height or width that the Gaussian window of `ssim` fits into.
SSIM_WINDOW = 11


def squared_errors(images: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Mean squared error of each image, accumulated in float64.

    Parameters
    ----------
    images, originals : ndarray of float32, shape (N, 1, H, W)

    Returns
    -------
    ndarray of float64, shape (N,)
    """
    return ((images - originals) ** 2).mean(axis=(1, 2, 3), dtype=np.float64)


def worst(errors: np.ndarray, count: int) -> np.ndarray:
    """Indices of the images with the largest errors, the largest first; equal errors stay in order.

    Parameters
    ----------
    errors : ndarray, shape (N,)
    count : int
        At most so many.

    Returns
    -------
    ndarray of int, shape (min(N, count),)
    """
    return np.argsort(-errors, kind="stable")[:count]


@overload
def psnr(mse: np.ndarray) -> np.ndarray: ...
@overload
def psnr(mse: float) -> float: ...
def psnr(mse: Any) -> Any:
    """Peak signal-to-noise ratio in dB, for intensities in [0, 1]; infinite if the error is 0.

    Parameters
    ----------
    mse : ndarray of float64 or float
        Mean squared errors. The mean PSNR of several images is not the PSNR of their mean error.
    """
    with np.errstate(divide="ignore"):
        return -10 * np.log10(mse)


def ssim(images: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Structural similarity of each image to its original, by scikit-image.

    The window is Gaussian with σ = 1.5, and the covariance is the population's: Z. Wang, A. C. Bovik,
    H. R. Sheikh and E. P. Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", 2004.

    Parameters
    ----------
    images, originals : ndarray of float32, shape (N, 1, H, W)
        Intensities in [0, 1]; H and W at least 11, the size of the window.

    Returns
    -------
    ndarray of float64, shape (N,)
        1 for equal images.
    """
    from skimage.metrics import structural_similarity  # scipy takes a second to load

    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(images[:, 0], originals[:, 0], strict=True)
    return np.array([structural_similarity(image, original, **options) for image, original in pairs])


def nearest_labels(images: NdArray, neighbours: NdArray, labels: np.ndarray) -> np.ndarray:
    """Classify images with a 1-nearest-neighbour classifier.

    Parameters
    ----------
    images : ndarray of float32, shape (N, 1, H, W)
        NumPy or CuPy.
    neighbours : ndarray of float32, shape (M, 1, H, W)
        On the same device.
    labels : ndarray of uint8, shape (M,)
        The labels of the neighbours, in main memory.

    Returns
    -------
    ndarray of uint8, shape (N,)
        For each image the label of the neighbour at the smallest Euclidean distance, of the first one if
        there are several. In main memory.
    """
    xp = backend.get_array_module(images)
    known: Any = neighbours.reshape(len(neighbours), -1)
    squares = (known**2).sum(axis=1)
    nearest = []
    for start in range(0, len(images), _CHUNK):
        chunk: Any = images[start : start + _CHUNK]
        # |i - n|² without |i|², which is the same for all neighbours.
        nearest.append(xp.argmin(squares - 2 * (chunk.reshape(len(chunk), -1) @ known.T), axis=1))
    return labels[backend.CpuDevice().send(xp.concatenate(nearest))]
