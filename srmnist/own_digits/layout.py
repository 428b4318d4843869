"""Restored digits put together to one picture again."""

from collections.abc import Sequence

import cv2
import numpy as np

from srmnist.own_digits.find_digits import Digit
from srmnist.own_digits.like_mnist import BOX, CENTRE, centre_of_mass, outline


def in_lines(digits: np.ndarray, places: Sequence[Digit]) -> np.ndarray:
    """Digits (N, 1, H, W) side by side in the lines in which they were found, one picture (1, …, …)."""
    lines = [digits[[place.line == line for place in places], 0] for line in range(places[-1].line + 1)]
    _, _, height, width = digits.shape
    picture = np.zeros((len(lines) * height, max(map(len, lines)) * width), digits.dtype)
    for number, line in enumerate(lines):
        picture[number * height : (number + 1) * height, : len(line) * width] = np.concatenate(line, axis=1)
    return picture[None]


def on_page(digits: np.ndarray, places: Sequence[Digit], shape: tuple[int, ...]) -> np.ndarray:
    """Digits (N, 1, 28, 28) where they were found, in the size that they had: one picture (1, *shape)."""
    page = np.zeros(shape, digits.dtype)
    for digit, place in zip(digits[:, 0], places, strict=True):
        box = outline(place.contrast)
        found = place.contrast[box]
        scale = max(found.shape) / BOX
        size = [max(1, round(length * scale)) for length in digit.shape]
        row, column = centre_of_mass(found)
        top = round(place.top + box[0].start + row + 0.5 - (CENTRE + 0.5) * scale)
        left = round(place.left + box[1].start + column + 0.5 - (CENTRE + 0.5) * scale)
        _lay(page, np.clip(cv2.resize(digit, size[::-1], interpolation=cv2.INTER_CUBIC), 0, 1), top, left)
    return page[None]


def _lay(page: np.ndarray, piece: np.ndarray, top: int, left: int) -> None:
    """Put a light piece on a dark page, as far as it lies on it; both show through."""
    above, before = max(0, -top), max(0, -left)
    window = page[max(0, top) : top + piece.shape[0], max(0, left) : left + piece.shape[1]]
    visible = piece[above : above + window.shape[0], before : before + window.shape[1]]
    np.maximum(window, visible, out=window)
