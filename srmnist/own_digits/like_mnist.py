"""Digits made like those of MNIST.

Its makers fitted each of NIST's digits into 20×20 pixels keeping its shape, which made black and white grey,
and placed it in 28×28 pixels by its centre of mass.

References
----------
Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition",
1998.
Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits",
http://yann.lecun.com/exdb/mnist/.
"""

import cv2
import numpy as np

SIDE = 28
BOX = 20
CENTRE = 14  # counted from 0, the pixel in which the centre of mass of each of the 70,000 digits lies
_OUTLINE = 0.4  # of the ink's contrast: where a digit begins and ends
_FINE_PEN, _PEN = 1.0, 1.6  # pixels of the 20; of MNIST's digits, none and 5 of 100 have finer strokes


def like_mnist(contrast: np.ndarray) -> np.ndarray:
    """Make a digit of any size like MNIST's.

    Parameters
    ----------
    contrast : ndarray of float32, shape (H, W)
        One digit on black, about 1 in its ink.

    Returns
    -------
    ndarray of float32, shape (1, 28, 28)
        Its lightest pixel is 1. A finer pen than MNIST's writers had is made as broad as theirs.
    """
    digit = _broadened(contrast[outline(contrast)])
    digit = digit[outline(digit)]
    height, width = (max(1, round(length * BOX / max(digit.shape))) for length in digit.shape)
    small = cv2.resize(digit, (width, height), interpolation=cv2.INTER_AREA)
    return _centred(np.clip(small / small.max(), 0, 1))[None]


def is_like_mnist(image: np.ndarray) -> bool:
    """Whether a picture (H, W), light on black, is made as MNIST's are.

    It has 28×28 pixels, its ink lies in a box of at most 20×20, and its centre of mass lies in the middle
    pixel, as in each of the 70,000, or in the next.
    """
    ink = image > 0.1
    if image.shape != (SIDE, SIDE) or not ink.any():
        return False
    boxes = (np.flatnonzero(ink.any(axis)) for axis in (0, 1))
    return all(np.ptp(box) < BOX for box in boxes) and all(
        abs(centre - CENTRE) <= 1.5 for centre in centre_of_mass(image)
    )


def outline(contrast: np.ndarray) -> tuple[slice, slice]:
    """The rows and the columns of the box that a digit (H, W) fills."""
    rows, columns = (np.flatnonzero((contrast > _OUTLINE).any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def centre_of_mass(image: np.ndarray) -> tuple[float, float]:
    """The row and the column of the centre of mass of an image (H, W), counted from 0."""
    rows, columns = image.sum(axis=1), image.sum(axis=0)
    total = float(image.sum())
    return float(rows @ np.arange(len(rows))) / total, float(columns @ np.arange(len(columns))) / total


def _broadened(digit: np.ndarray) -> np.ndarray:
    """A digit whose strokes, on the scale of 20 pixels, are no thinner than MNIST's."""
    pixel = max(digit.shape) / BOX
    width = _stroke_width(digit)
    missing = (_PEN * pixel - width) / 2
    if width >= _FINE_PEN * pixel or missing < 0.5:
        return digit
    pen = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(missing) + 1,) * 2)
    margin = pen.shape[0]
    return cv2.dilate(np.pad(digit, margin), pen)


def _stroke_width(digit: np.ndarray) -> float:
    """A stroke's area is its width times its length, and its outline twice its length."""
    mask = np.pad(digit > 0.5, 1).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outline = sum(cv2.arcLength(contour, True) for contour in contours)
    return 2 * float(mask.sum()) / max(outline, 1)


def _centred(digit: np.ndarray) -> np.ndarray:
    """A digit of at most 20×20 in 28×28, its centre of mass in the middle pixel."""
    top, left = (
        int(np.clip(CENTRE - np.floor(centre + 0.5), 0, SIDE - length))
        for centre, length in zip(centre_of_mass(digit), digit.shape, strict=True)
    )
    image = np.zeros((SIDE, SIDE), np.float32)
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return image
