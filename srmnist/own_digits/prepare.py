"""A picture becomes the digits that the network is to restore."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from srmnist.own_digits.find_digits import Digit, find_digits
from srmnist.own_digits.ink import find_ink, is_darker
from srmnist.own_digits.like_mnist import SIDE, is_like_mnist, like_mnist
from srmnist.own_digits.read_image import grey, read_image
from srmnist.system.files import FileError

MOST_DIGITS = 500
_WORKING_SIDE = 1600  # pixels: enough for 500 digits on a page
_ENOUGH = 200  # pixels: what is smaller is enlarged before strokes are looked for


@dataclass(frozen=True)
class Prepared:
    """The digits of a picture, light on black.

    Attributes
    ----------
    given : ndarray of float32, shape (1, H, W) or (3, H, W)
        The picture, perhaps shrunk.
    digits : ndarray of float32, shape (N, 1, 28, 28), or (1, 1, H, W) of a picture that is taken as it is
    dark : bool
        Whether the digits are darker than the paper in `given`.
    places : list of Digit
        Where in `given` each of the digits was found; empty if the picture is taken as it is.
    """

    given: np.ndarray
    digits: np.ndarray
    dark: bool
    places: list[Digit] = field(default_factory=list)


def prepare(path: Path, size: int = 10, shrink: bool = True, dark: bool | None = None) -> Prepared:
    """Read a picture and make its digits like those of MNIST.

    A picture that is made so already (see `is_like_mnist`; in either polarity) is not made anew: only its
    background becomes black and its lightest pixel white. A digit of MNIST stays what it is.

    Parameters
    ----------
    path : Path
    size : int, default 10
        Height and width that digits will be shrunk to; a picture that is no larger is taken as it is.
    shrink : bool, default True
        Whether digits will be shrunk. If not, the picture is taken as it is, in its own size.
    dark : bool, optional
        Whether the digits are darker than the paper. None looks at the ink, or, in a picture of at most
        28×28 pixels, at the border.

    Raises
    ------
    FileError
        As `read_image` does, or if the picture shows no digit, or more than 500.
    """
    given = read_image(path, _WORKING_SIDE if shrink else None)
    shade = grey(given)
    longer = max(given.shape[1:])
    if dark is None and longer <= SIDE:
        dark = float(_border(shade[0])) > 0.5
    if longer <= size or not shrink:
        dark = is_darker(shade[0]) if dark is None else dark
        return Prepared(given, (1 - shade if dark else shade)[None], dark)
    if given.shape[1:] == (SIDE, SIDE):
        digit = _on_black(1 - shade[0] if dark else shade[0])
        if is_like_mnist(digit):
            return Prepared(given, digit[None, None], bool(dark))
    return _found(path, given, shade[0], dark)


def _found(path: Path, given: np.ndarray, shade: np.ndarray, dark: bool | None) -> Prepared:
    factor = max(1, round(_ENOUGH / max(shade.shape)))
    margin = 0
    if factor > 1:  # small pictures are often cropped to the ink, and then show little paper
        border = max(shade.shape) // 2
        shade = np.pad(shade, border, constant_values=_border(shade))
        size = [length * factor for length in shade.shape[::-1]]
        shade = np.clip(cv2.resize(shade, size, interpolation=cv2.INTER_CUBIC), 0, 1)
        given = given.repeat(factor, axis=1).repeat(factor, axis=2)
        margin = border * factor
    ink = find_ink(shade, dark)
    places = find_digits(ink) if ink is not None else []
    if ink is None or not places:
        raise FileError(
            f"{path}: no digit stands out of the paper: come closer, or use --no-degrade to take it as it is"
        )
    if len(places) > MOST_DIGITS:
        raise FileError(f"{path}: shows {len(places)} digits; at most {MOST_DIGITS} are restored: crop it")
    digits = np.stack([like_mnist(place.contrast) for place in places])
    places = [replace(place, top=place.top - margin, left=place.left - margin) for place in places]
    return Prepared(given, digits, ink.darker, places)


def _border(image: np.ndarray) -> np.floating:
    """The median along the border of a picture (H, W)."""
    inner = np.zeros(image.shape, bool)
    inner[1:-1, 1:-1] = True
    return np.median(image[~inner])


def _on_black(image: np.ndarray) -> np.ndarray:
    """A picture (H, W) of something light, its border made black and its lightest pixel white."""
    lightness = np.maximum(image - _border(image), 0)
    return lightness / max(lightness.max(), np.finfo(np.float32).tiny)
