"""Anybody's own digits: image files of any size, made what the network knows, and restored."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from srmnist.degradation import degrade, enlarge
from srmnist.figures import draw_side_by_side, grey_png, png
from srmnist.own_digits.read_image import read_image
from srmnist.restoration import load_model, restore
from srmnist.system.errors import UserError
from srmnist.system.files import write_all
from srmnist.system.fonts import caption

_SIDE = 28  # of MNIST's images: the scale at which the network has learned what strokes look like


def restore_files(
    images: Sequence[Path],
    model_file: Path,
    out: Path,
    size: int = 10,
    as_given: bool = False,
    black_on_white: bool | None = None,
    gpu: int = -1,
) -> list[Path]:
    """Restore image files; write of each ``NAME_restored.png`` and ``NAME_compared.png``.

    Parameters
    ----------
    images : sequence of Path
        Files of any format that OpenCV reads, see `read_image`. What is no larger than `size`
        is enlarged to 28×28 and restored; what is larger is first made 28×28 and degraded.
    model_file : Path
        Weights of `CNNAE`, Chainer's npz.
    out : Path
        Directory for the pictures; made if it does not exist.
    size : int, default 10
        Height and width that larger images are shrunk to.
    as_given : bool, default False
        Restore each image as it is, in its own size.
    black_on_white : bool, optional
        Whether the digits are darker than their background; None looks at each image's border. They are
        restored as the white on black that the network knows, and written as they were given.
    gpu : int, default -1
        CUDA device number; negative is the CPU.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    UserError
        If a file or the device is not usable, or if two images would be written under one name; nothing has
        then been written.
    """
    if size > _SIDE:
        raise UserError(f"--size {size}: at most {_SIDE}, to which the images are enlarged again")
    _check_names(images)
    model = load_model(model_file, gpu)
    pictures = {}
    for path in images:
        given = read_image(path)
        negative = is_black_on_white(given) if black_on_white is None else black_on_white
        digit = 1 - given if negative else given
        degraded = digit if as_given else _degraded(digit, size)
        restored = restore(degraded, model)
        steps = {_title(path.name, given): given[0]}
        if not as_given:
            steps[f"degraded by {size}×{size}"] = (1 - degraded if negative else degraded)[0]
        result = (1 - restored if negative else restored)[0]
        pictures[f"{path.stem}_restored.png"] = grey_png(result)
        pictures[f"{path.stem}_compared.png"] = png(draw_side_by_side({**steps, "restored": result}))
    return write_all(out, pictures, inputs=images)


def _degraded(digit: np.ndarray, size: int) -> np.ndarray:
    """What the network is to see of a digit (1, 1, H, W) of any size."""
    if max(digit.shape[2:]) <= size:
        return enlarge(digit, (_SIDE, _SIDE))
    return degrade(fit(digit, _SIDE), size)


def _title(name: str, image: np.ndarray) -> str:
    return caption(name, "×".join(map(str, image.shape[2:])))


def _check_names(images: Sequence[Path]) -> None:
    of_stem: dict[str, Path] = {}
    for path in images:
        other = of_stem.setdefault(path.stem, path)
        if other is not path:
            raise UserError(f"{path}: its results would have the names of {other}'s; restore one at a time")


def is_black_on_white(image: np.ndarray) -> bool:
    """Whether an image (1, 1, H, W) has a light background, which is what most of its border shows."""
    return float(_background(image)) > 0.5


def fit(digit: np.ndarray, side: int) -> np.ndarray:
    """Make a picture of a light digit on a dark background like those of MNIST.

    Its background becomes black and its lightest pixel white: the network has never seen grey paper, and
    takes it for strokes. It is padded to a square, and then each pixel averages over what it covers
    (``cv2.INTER_AREA``); MNIST's makers smoothed theirs in making them small, too.

    Parameters
    ----------
    digit : ndarray of float32, shape (1, 1, H, W)
    side : int
        Height and width to arrive at.

    Returns
    -------
    ndarray of float32, shape (1, 1, side, side)
    """
    lightness = np.maximum(digit[0, 0] - _background(digit), 0)
    lightness /= max(lightness.max(), np.finfo(np.float32).tiny)
    height, width = lightness.shape
    longer = max(height, width)
    square = np.zeros((longer, longer), np.float32)
    top, left = (longer - height) // 2, (longer - width) // 2
    square[top : top + height, left : left + width] = lightness
    return cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA)[None, None]


def _background(image: np.ndarray) -> np.floating:
    border = np.ones(image.shape[2:], bool)
    border[1:-1, 1:-1] = False
    return np.median(image[0, 0][border])
