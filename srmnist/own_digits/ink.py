"""Ink told apart from paper, light, noise and ruled lines.

The steps are those of document binarisation: the paper's light is estimated and divided out, and then one
threshold serves the whole picture.

References
----------
N. Otsu, "A threshold selection method from gray-level histograms", 1979.
B. Gatos, I. Pratikakis and S. J. Perantonis, "Adaptive degraded document image binarization", 2006.
"""

from dataclasses import dataclass

import cv2
import numpy as np

_FAINTEST = 0.06  # of the paper's light: a smaller difference is the paper's texture
_EDGE, _CORE = 0.35, 0.65  # of the ink's usual contrast: where ink ends, and what each stroke reaches
_ROUGH_SIDE, _PAPER_SIDE = 128, 512  # the paper's light varies slowly: so many pixels show it
_NORMAL = 1.4826  # the standard deviation of normal noise, in median absolute deviations


@dataclass(frozen=True)
class Ink:
    """What is written on a picture.

    Attributes
    ----------
    contrast : ndarray of float32, shape (H, W)
        0 on paper, about 1 in ink.
    mask : ndarray of bool, shape (H, W)
        Where there is ink.
    darker : bool
        Whether the ink is darker than the paper around it.
    """

    contrast: np.ndarray
    mask: np.ndarray
    darker: bool


def find_ink(grey: np.ndarray, darker: bool | None = None) -> Ink | None:
    """Find what is written on a picture.

    Parameters
    ----------
    grey : ndarray of float32, shape (H, W)
        Of any range from 0 up: only ratios count.
    darker : bool, optional
        Whether the ink is darker than the paper; None looks at the ink.

    Returns
    -------
    Ink or None
        None if nothing stands out of the paper's noise.
    """
    grey = grey / max(float(grey.max()), np.finfo(np.float32).tiny)
    if darker is None:
        darker = is_darker(grey)
    contrast = _contrast(grey, darker)
    smooth = cv2.GaussianBlur(contrast, (0, 0), max(1.0, max(grey.shape) / 800))
    noise = _noise(smooth)
    faintest = max(5 * noise, _FAINTEST)
    visible = (smooth > faintest) & ~_rules(smooth, faintest / 2)
    if not visible.any():
        return None
    level = _usual_contrast(smooth[visible])
    mask = _reaching((smooth > _EDGE * level) & visible, smooth > _CORE * level)
    return Ink(np.clip(contrast / level, 0, 1), mask, darker)


def is_darker(grey: np.ndarray) -> bool:
    """Whether what stands out of a picture (H, W) of paper is darker than the paper around it."""
    small = _shrunk(grey, _ROUGH_SIDE)
    deviation = small - _surroundings(small)
    noise = 2 * _noise(deviation)
    return float(np.maximum(-deviation - noise, 0).sum()) >= float(np.maximum(deviation - noise, 0).sum())


def _contrast(grey: np.ndarray, darker: bool) -> np.ndarray:
    """By how much of the paper's light each pixel differs from it, positive towards the ink.

    The paper under the ink is that around it: a morphological closing with a square a little wider than the
    strokes takes dark ink away, and leaves the straight edge of a shadow where it is.
    """
    sign = np.float32(1 if darker else -1)
    small = _shrunk(grey, _PAPER_SIDE) * sign
    square = np.ones((_wider_than_strokes(small),) * 2, np.uint8)
    paper = cv2.morphologyEx(cv2.GaussianBlur(small, (0, 0), 1.5), cv2.MORPH_CLOSE, square)
    paper = cv2.GaussianBlur(paper, (0, 0), 3) * sign
    paper = cv2.resize(paper, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return (paper - grey) * sign / (np.maximum(paper, 0) + np.float32(0.05))


def _wider_than_strokes(dark_ink: np.ndarray) -> int:
    """The side in pixels of a square that no stroke contains."""
    rough = _surroundings(_shrunk(dark_ink, _ROUGH_SIDE))
    deviation = cv2.resize(rough, dark_ink.shape[::-1], interpolation=cv2.INTER_LINEAR) - dark_ink
    strokes = deviation > max(4 * _noise(deviation), 0.4 * float(np.percentile(deviation, 99.5)))
    depth = cv2.distanceTransform(strokes.astype(np.uint8), cv2.DIST_L2, 3)
    width = 2 * np.percentile(depth[strokes], 99) if strokes.any() else 0
    return int(np.clip(1.6 * width + 8, 9, max(9, min(dark_ink.shape) // 2)))


def _surroundings(small: np.ndarray) -> np.ndarray:
    """The median around each pixel, over half the picture's height or width: paper, not ink."""
    low, high = float(small.min()), float(small.max())
    scale = np.float32(255 / max(high - low, 1e-6))
    window = max(3, min(small.shape) // 2 | 1)
    return cv2.medianBlur(((small - low) * scale).astype(np.uint8), window) / scale + np.float32(low)


def _usual_contrast(contrasts: np.ndarray) -> float:
    """The median contrast of ink; soft edges and faint marks lie below Otsu's threshold."""
    top = float(contrasts.max())
    threshold, _ = cv2.threshold((contrasts / top * 255).astype(np.uint8), 0, 1, cv2.THRESH_OTSU)
    return float(np.median(contrasts[contrasts >= threshold / 255 * top]))


def _reaching(mask: np.ndarray, core: np.ndarray) -> np.ndarray:
    """Those connected parts of a mask that contain some of the core: thresholding with hysteresis."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8))
    chosen = np.zeros(labels.max() + 1, bool)
    chosen[labels[core]] = True
    chosen[0] = False
    return chosen[labels]


def _rules(contrast: np.ndarray, faintest: float) -> np.ndarray:
    """Where the lines of ruled or squared paper are: thin, straight, and from one side to the other.

    A morphological opening leaves what is broader than a line: the strokes, also where they cross one.
    """
    breadth = max(5, round(max(contrast.shape) / 150))
    strokes = cv2.morphologyEx(contrast, cv2.MORPH_OPEN, np.ones((breadth, breadth), np.uint8))
    thin = (contrast - strokes > faintest).astype(np.uint8)
    level = _level_lines(thin, breadth + 2)
    upright = _level_lines(np.ascontiguousarray(thin.T), breadth + 2).T
    return (level | upright) & (strokes < contrast / 2)


def _level_lines(thin: np.ndarray, breadth: int) -> np.ndarray:
    """Where nearly level lines cross a picture of what is thin: found by the Hough transform.

    R. O. Duda and P. E. Hart, "Use of the Hough transformation to detect lines and curves in pictures", 1972.
    """
    height, width = thin.shape
    lines = cv2.HoughLines(thin, 1, np.pi / 720, width // 3, min_theta=np.pi * 0.47, max_theta=np.pi * 0.53)
    near = cv2.dilate(thin, np.ones((3, 1), np.uint8))
    drawn = np.zeros_like(thin)
    for distance, angle in [] if lines is None else lines[:, 0]:
        x = np.arange(width)
        y = np.round((distance - x * np.cos(angle)) / np.sin(angle)).astype(int)
        x, y = x[(y >= 0) & (y < height)], y[(y >= 0) & (y < height)]
        if _is_covered(near[y, x]):
            ends = [(int(x[end]), int(y[end])) for end in (0, -1)]
            cv2.line(drawn, ends[0], ends[1], (1,), breadth)
    return drawn > 0


def _is_covered(along: np.ndarray) -> bool:
    """Whether the pixels along a line show ink for the most part, and at both of its ends."""
    end = len(along) // 10
    return end > 0 and bool(along.mean() > 0.6 and along[:end].any() and along[-end:].any())


def _noise(values: np.ndarray) -> float:
    """The standard deviation of what is mostly noise around its median."""
    return _NORMAL * float(np.median(np.abs(values - np.median(values))))


def _shrunk(image: np.ndarray, side: int) -> np.ndarray:
    factor = side / max(image.shape)
    if factor >= 1:
        return image
    size = [max(1, round(length * factor)) for length in image.shape[::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
