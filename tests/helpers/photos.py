"""Photos of one handwritten digit each, rendered from MNIST: paper, ink, light, noise and JPEG.

The ten kinds are those in which people photograph a digit. Every photo is drawn from its seed alone.
"""

import io

import cv2
import numpy as np
from PIL import Image

KINDS = ("plain", "small", "shadow", "lined", "pencil", "chalk", "blue", "dim", "rotated", "grid")
_UPRIGHT_AFTER_QUARTER_TURN = 6  # EXIF orientation of a picture that is stored lying on its left side
_ORIENTATION = 0x0112


def take_photo(digit: np.ndarray, kind: str, seed: int) -> bytes:
    """A JPEG file of a digit.

    Parameters
    ----------
    digit : ndarray of uint8, shape (28, 28)
        White on black, as in MNIST.
    kind : str
        One of `KINDS`.
    seed : int
        Of everything that chance decides: sizes, place, light, ink, lines, noise, JPEG quality.
    """
    random = np.random.default_rng([seed, KINDS.index(kind)])
    height, width = random.integers(500, 1500, 2)
    ink = _write(digit, kind, height, width, random)
    paper, pen = _materials(kind, random)
    surface = np.full((height, width, 3), paper, np.float32)
    if kind in ("lined", "grid"):
        surface *= 1 - _rules(kind, height, width, random)[..., None]
    picture = surface * (1 - ink[..., None]) + np.float32(pen) * ink[..., None]
    picture *= _light(kind, height, width, random)[..., None]
    return _develop(picture, kind, random)


def _write(digit: np.ndarray, kind: str, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """How much ink covers each pixel, from 0 to 1."""
    share = random.uniform(0.11, 0.2) if kind == "small" else random.uniform(0.3, 0.75)
    side = int(share * min(height, width) * 28 / 20)
    large = cv2.resize(digit / np.float32(255), (side, side), interpolation=cv2.INTER_CUBIC)
    hardness = random.uniform(1, 2.5)  # 1 leaves MNIST's soft edges, more makes them a pen's
    large = np.clip((large - 0.5) * hardness + 0.5 * min(hardness, 1.4), 0, 1) if hardness > 1.2 else large
    large = cv2.GaussianBlur(np.clip(large, 0, 1), (0, 0), side / 28 * random.uniform(0.1, 0.4) + 0.3)
    rows, columns = np.flatnonzero(digit.any(1)), np.flatnonzero(digit.any(0))
    scale = side / 28
    box = [int(x * scale) for x in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)]
    tall, broad = box[1] - box[0], box[3] - box[2]
    margin = 0.03 * min(height, width)
    if kind in ("plain", "rotated"):
        y, x = (height - tall) * random.uniform(0.4, 0.6), (width - broad) * random.uniform(0.4, 0.6)
    else:
        y, x = random.uniform(margin, height - tall - margin), random.uniform(margin, width - broad - margin)
    ink = np.zeros((height, width), np.float32)
    shift = np.float32([[1, 0, x - box[2]], [0, 1, y - box[0]]])
    return cv2.warpAffine(large, shift, (int(width), int(height)), dst=ink)


def _materials(kind: str, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colours of the paper, or of the board, and of what writes on it."""
    paper = random.uniform(0.72, 0.95) + random.uniform(-0.02, 0.02, 3)
    if kind == "chalk":
        return random.uniform(0.17, 0.35) + random.uniform(-0.03, 0.03, 3), np.full(
            3, random.uniform(0.7, 0.9)
        )
    if kind == "pencil":
        return paper, paper * random.uniform(0.55, 0.75)
    if kind == "blue":
        return paper, np.array([0.1, 0.25, 0.65]) * random.uniform(0.8, 1.2)
    return paper, np.full(3, random.uniform(0.05, 0.25))


def _rules(kind: str, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """How much light the lines of ruled or squared paper take away; they are a little off the level."""
    step = random.uniform(0.04, 0.09) * max(height, width)
    thickness, depth, tilt = random.uniform(1, 2.5), random.uniform(0.08, 0.35), random.uniform(-0.02, 0.02)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    level, upright = y + tilt * x, x - tilt * y
    lines = np.abs((level + random.uniform(0, step)) % step - step / 2) < thickness / 2
    if kind == "grid":
        lines |= np.abs((upright + random.uniform(0, step)) % step - step / 2) < thickness / 2
    return depth * cv2.GaussianBlur(lines.astype(np.float32), (0, 0), 0.6)


def _light(kind: str, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Light that falls off to one side, and in its way whatever casts a shadow."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y / height - 0.5, x / width - 0.5
    angle = random.uniform(0, 2 * np.pi)
    slope = random.uniform(0.25, 0.6) if kind == "shadow" else random.uniform(0, 0.2)
    light = 1 - slope * (0.5 + x * np.cos(angle) + y * np.sin(angle))
    if kind == "shadow":
        angle, place = random.uniform(0, 2 * np.pi), random.uniform(-0.25, 0.25)
        distance = x * np.cos(angle) + y * np.sin(angle) - place
        light *= 1 - random.uniform(0.25, 0.5) / (1 + np.exp(-distance / random.uniform(0.004, 0.02)))
    return light * random.uniform(0.4, 0.6) if kind == "dim" else light


def _develop(picture: np.ndarray, kind: str, random: np.random.Generator) -> bytes:
    """The sensor's noise, and the file."""
    strength = random.uniform(0.005, 0.025)
    noise = random.standard_normal(picture.shape[:2])[..., None] + 0.5 * random.standard_normal(picture.shape)
    pixels = (np.clip(picture + strength * noise, 0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    if kind == "rotated":
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[_ORIENTATION] = _UPRIGHT_AFTER_QUARTER_TURN
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(random.integers(60, 95)), exif=exif)
    return file.getvalue()
