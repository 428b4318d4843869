"""Digits found in the ink of a picture, in the order in which they are read."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from srmnist.own_digits.ink import Ink

_SPECK = 0.015  # of the picture's longer side: what is lower is no digit
_CROPPED = 0.5  # of the picture's height: so high is a digit to which the picture was cropped
_FULL = 0.45  # of the tallest digit's height: what is lower belongs to a digit, if one is near
_ALONE = 0.3  # of the tallest digit's height: the lowest that is a digit with none near
_NEAR = 0.25  # of the tallest digit's height
_MOST_PARTS = 4000  # more are noise
_OUTLINE_POINTS = 150  # enough of an outline to measure distances by


@dataclass(frozen=True)
class Digit:
    """One digit of a picture.

    Attributes
    ----------
    contrast : ndarray of float32, shape (h, w)
        The digit cut out of `Ink.contrast`, alone on black.
    top, left : int
        Where this piece lies in the picture.
    line : int
        The line in which the digit stands, from 0.
    """

    contrast: np.ndarray
    top: int
    left: int
    line: int


@dataclass(frozen=True)
class _Part:
    """Ink that is connected, or that belongs together: its labels, its box and points of its outline."""

    labels: tuple[int, ...]
    left: int
    top: int
    right: int
    bottom: int
    outline: np.ndarray

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def is_dash(self) -> bool:
        return self.right - self.left > 4 * self.height

    def joined(self, other: "_Part") -> "_Part":
        return _Part(
            self.labels + other.labels,
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
            np.concatenate([self.outline, other.outline]),
        )

    def distance(self, other: "_Part", limit: float) -> float:
        """The distance of the two outlines in pixels; infinite where it is certainly above the limit."""
        apart_x = max(self.left, other.left) - min(self.right, other.right)
        apart_y = max(self.top, other.top) - min(self.bottom, other.bottom)
        if max(apart_x, apart_y) > limit:
            return np.inf
        offsets = self.outline[:, None] - other.outline
        return float(np.sqrt((offsets**2).sum(axis=2).min()))


def find_digits(ink: Ink) -> list[Digit]:
    """Cut the ink of a picture into digits, left to right, line by line.

    Strokes that touch are one digit. A stroke that stands apart belongs to the digit beside it if it is small
    and near. What the picture's border cuts is no digit, unless it fills a picture in which nothing else is.

    Returns
    -------
    list of Digit
        Empty if there are only specks.
    """
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(ink.mask.astype(np.uint8))
    digits = _grouped(_whole_ones(_parts(labels, boxes), ink.mask.shape))
    return [_cut(ink, labels, digit, line) for line, digit in _in_reading_order(digits)]


def _parts(labels: np.ndarray, boxes: np.ndarray) -> list[_Part]:
    """The connected parts of the ink, the largest first."""
    parts = []
    for label in 1 + np.argsort(-boxes[1:, cv2.CC_STAT_AREA], kind="stable")[:_MOST_PARTS]:
        left, top, width, height = (int(value) for value in boxes[label, :4])
        piece = (labels[top : top + height, left : left + width] == label).astype(np.uint8)
        contours, _ = cv2.findContours(piece, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(left, top))
        outline = np.concatenate(contours)[:, 0].astype(np.float32)
        outline = outline[:: max(1, len(outline) // _OUTLINE_POINTS)]
        parts.append(_Part((int(label),), left, top, left + width, top + height, outline))
    return parts


def _whole_ones(parts: list[_Part], shape: tuple[int, ...]) -> list[_Part]:
    """The parts that the picture's border does not cut, or the digits to which it was cropped."""
    height, width = shape
    longer = max(shape)
    inside = [p for p in parts if p.top > 0 and p.left > 0 and p.bottom < height and p.right < width]
    if any(part.height >= _SPECK * longer and not part.is_dash for part in inside):
        return inside
    return [part for part in parts if part.height >= _CROPPED * height and not part.is_dash]


def _grouped(parts: list[_Part]) -> list[_Part]:
    """The digits that the parts are or make up."""
    if not parts:
        return []
    tallest = max(part.height for part in parts if not part.is_dash)
    near = _NEAR * tallest
    digits: list[_Part] = []
    for part in sorted(parts, key=lambda part: (part.is_dash, -part.height)):
        distances = [digit.distance(part, near) for digit in digits]
        closest = int(np.argmin(distances)) if digits else -1
        small = part.is_dash or part.height < _FULL * tallest
        close = bool(digits) and distances[closest] <= near
        if close and (small or _is_stacked(digits[closest], part, tallest)):
            digits[closest] = digits[closest].joined(part)
        elif part.height >= _ALONE * tallest and not part.is_dash:
            digits.append(part)
    return digits


def _is_stacked(digit: _Part, part: _Part, tallest: int) -> bool:
    """Whether two tall parts lie over each other and make up one digit, such as a 5 and its upper stroke."""
    overlap = min(digit.right, part.right) - max(digit.left, part.left)
    narrower = min(digit.right - digit.left, part.right - part.left)
    height = max(digit.bottom, part.bottom) - min(digit.top, part.top)
    return overlap >= 0.5 * narrower and height <= 1.7 * tallest


def _in_reading_order(digits: list[_Part]) -> Iterator[tuple[int, _Part]]:
    """Each digit with its line. A digit continues the line whose last digit stands most at its own height."""
    lines: list[list[_Part]] = []
    for digit in sorted(digits, key=lambda digit: digit.left):
        shares = [_shared_height(line[-1], digit) for line in lines]
        if shares and max(shares) > 0.4:
            lines[int(np.argmax(shares))].append(digit)
        else:
            lines.append([digit])
    lines.sort(key=lambda line: float(np.mean([digit.top + digit.bottom for digit in line])))
    for number, line in enumerate(lines):
        for digit in line:
            yield number, digit


def _shared_height(one: _Part, other: _Part) -> float:
    shared = min(one.bottom, other.bottom) - max(one.top, other.top)
    return shared / min(one.height, other.height)


def _cut(ink: Ink, labels: np.ndarray, digit: _Part, line: int) -> Digit:
    """A digit with the soft edge of its strokes, and without its neighbours."""
    edge = max(2, round(0.03 * max(digit.height, digit.right - digit.left)))
    top, left = max(0, digit.top - edge), max(0, digit.left - edge)
    window = np.s_[top : digit.bottom + edge, left : digit.right + edge]
    own = np.isin(labels[window], digit.labels).astype(np.uint8)
    near = cv2.dilate(own, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * edge + 1,) * 2)) > 0
    others = (labels[window] > 0) & (own == 0)
    return Digit(np.where(near & ~others, ink.contrast[window], 0), top, left, line)
