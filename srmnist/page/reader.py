"""The page's reader: it says which digit an image shows, with as little data as fits into the page.

The reader names the most similar of 500 mean digits, 50 for each digit. They are the centres of k-means
(S. P. Lloyd, "Least squares quantization in PCM", 1982) of 20,000 of MNIST's training images. `digit.js` has
the same reader.

All arithmetic is in whole numbers, so every computer gets the same centres: float32 holds each sum exactly.
"""

import numpy as np

from srmnist.data import Split

_IMAGES = 20_000  # all 60,000 take three times as long, and gain half a point of accuracy
_PER_DIGIT = 50
_ITERATIONS = 5
_LEVELS = 16  # a pixel of a prototype takes 4 bits


def prototypes(train: Split) -> np.ndarray:
    """Mean digits to compare with.

    Parameters
    ----------
    train : Split
        Images of 28×28 pixels and the labels 0 to 9.

    Returns
    -------
    ndarray of uint8, shape (500, 196)
        50 of each digit, the digits in order; pixels from 0 to 15, as `shrink_for_reader` makes them.
    """
    assert train.labels is not None
    images, labels = shrink_for_reader(train.images[:_IMAGES]), train.labels[:_IMAGES]
    centres = [_k_means(images[labels == digit]) for digit in range(10)]
    return np.concatenate(centres).astype(np.uint8)


def read(images: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The digits that images show, by the most similar prototype.

    Parameters
    ----------
    images : ndarray of uint8, shape (N, 28, 28)
    known : ndarray of uint8, shape (500, 196)
        See `prototypes`.

    Returns
    -------
    ndarray of int64, shape (N,)
    """
    nearest = _nearest(shrink_for_reader(images), known.astype(np.float32))
    return nearest * 10 // len(known)


def shrink_for_reader(images: np.ndarray) -> np.ndarray:
    """Means of 2×2 pixels in 16 steps.

    Parameters
    ----------
    images : ndarray of uint8, shape (N, 28, 28)

    Returns
    -------
    ndarray of float32, shape (N, 196)
        Whole numbers from 0 to 15.
    """
    wide = images.astype(np.uint16)  # the largest sum, times 15, is 15,300
    rows = wide[:, ::2] + wide[:, 1::2]
    sums = (rows[:, :, ::2] + rows[:, :, 1::2]).reshape(-1, 196)
    most = 4 * 255
    return ((sums * (_LEVELS - 1) + most // 2) // most).astype(np.float32)


def pack(known: np.ndarray) -> bytes:
    """Prototypes as bytes: two pixels in each, the first in the upper half."""
    return (known[:, ::2] << 4 | known[:, 1::2]).tobytes()


def _k_means(images: np.ndarray) -> np.ndarray:
    """50 centres of images (N, 196); they start as images that are spread evenly over the training set."""
    centres = images[np.arange(_PER_DIGIT) * len(images) // _PER_DIGIT]
    for _ in range(_ITERATIONS):
        members = (_nearest(images, centres)[:, None] == np.arange(_PER_DIGIT)).astype(np.float32)
        counts = members.sum(axis=0)[:, None]
        means = np.floor((2 * (members.T @ images) + counts) / np.maximum(2 * counts, 1))
        centres = np.where(counts > 0, means, centres)
    return centres


def _nearest(images: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index of the centre that is nearest to each image; the first of equally near ones."""
    # |i − c|² less |i|², which is the same for all centres.
    return np.argmin((centres**2).sum(axis=1) - 2 * (images @ centres.T), axis=1)
