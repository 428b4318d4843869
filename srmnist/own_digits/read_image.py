"""Images that a user gives: whatever OpenCV reads becomes what the network takes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from srmnist.system.files import FileError, read_regular

_LARGEST_FILE = 64 << 20
_MOST_PIXELS = 1 << 22
_PIXELS_VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"

# OpenCV compares an image's header with this before it decodes; it takes the value once, when it is loaded.
if "cv2" not in sys.modules and _PIXELS_VARIABLE not in os.environ:
    os.environ[_PIXELS_VARIABLE] = str(_MOST_PIXELS)
    import cv2

    del os.environ[_PIXELS_VARIABLE]
else:
    import cv2


def read_image(path: Path) -> np.ndarray:
    """Read an image file as one grey image.

    Colours are weighed as OpenCV does (ITU-R BT.601). Transparent parts become black, or white where what
    is opaque is dark. Of 8 and 16 bits the largest value is white; floating-point images are cut to [0, 1].

    Parameters
    ----------
    path : Path

    Returns
    -------
    ndarray of float32, shape (1, 1, H, W)
        Intensities in [0, 1].

    Raises
    ------
    FileError
        If the file cannot be read, is not an image, is damaged, or has more than 4,194,304 pixels.
    """
    data = np.frombuffer(read_regular(path, _LARGEST_FILE), np.uint8)
    try:
        with _silence():
            image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        reason = f"more than {_MOST_PIXELS:,} pixels" if "pixels" in str(error) else "damaged"
        raise FileError(f"{path}: cannot be read as an image: {reason}") from error
    if image is None:
        raise FileError(
            f"{path}: cannot be read as an image: damaged, or of a format that OpenCV does not know"
        )
    if image.shape[0] * image.shape[1] > _MOST_PIXELS:
        raise FileError(f"{path}: more than {_MOST_PIXELS:,} pixels")
    return _grey(_unit_range(path, image))[None, None]


def _unit_range(path: Path, image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8 or image.dtype == np.uint16:
        return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    if image.dtype.kind != "f" or not np.isfinite(image).all():
        raise FileError(f"{path}: its pixels are neither 8 nor 16 bits nor finite floating-point numbers")
    return np.clip(image, 0, 1).astype(np.float32)


def _grey(image: np.ndarray) -> np.ndarray:
    """One channel of one, three (BGR) or four (BGR and alpha)."""
    if image.ndim == 2:
        return image
    colours = np.ascontiguousarray(image[..., :3])
    # Weights that add up to a little over 1 in float32 must not lead out of the range.
    grey = np.minimum(cv2.cvtColor(colours, cv2.COLOR_BGR2GRAY), 1)
    if image.shape[2] < 4:
        return grey
    alpha = image[..., 3]
    paper = 1 if (grey * alpha).sum() < alpha.sum() / 2 else 0
    return grey * alpha + paper * (1 - alpha)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep from the terminal what the decoders say to it past Python; what is wrong is said once, by us."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
