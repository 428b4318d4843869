"""Pictures as phones and scanners make them, read as floating-point images."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import ExifTags, Image

from srmnist.system.errors import first_line
from srmnist.system.files import FileError, open_regular

try:
    import pillow_heif
except ImportError:  # HEIC is then named for what it is
    pillow_heif = None
else:
    pillow_heif.register_heif_opener()

MOST_PIXELS = 200_000_000  # the largest sensors of phones have 200 megapixels

# ITU-R BT.601, as OpenCV and Pillow weigh colours.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_BIT_DEPTHS = (8, 10, 12, 14, 16, 32)  # that cameras and scanners store in 16 or 32 bits
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"heif", b"mif1", b"msf1"}


def read_image(path: Path, side: int | None = None) -> np.ndarray:
    """Read a picture of any format that Pillow knows, upright, in grey or in colours.

    The orientation in EXIF is obeyed. Transparent parts become black, or white where what is opaque is dark.
    White is the largest value of 8 bits; of deeper grey pictures, the largest value of the fewest bits of
    8, 10, 12, 14, 16 and 32 that hold them; of floating-point ones, 1 or the largest value. Of an animation
    or of several pages the first is read.

    Parameters
    ----------
    path : Path
    side : int, optional
        Shrink the picture by a whole factor, so that neither side is longer. Each pixel becomes the mean of
        those that it covers. JPEG is decoded at a reduced size, so that a large photo takes little memory.

    Returns
    -------
    ndarray of float32, shape (1, H, W) or (3, H, W)
        Grey, or red, green and blue, in [0, 1].

    Raises
    ------
    FileError
        If the file cannot be read, is not a picture, is damaged, or has more than 200,000,000 pixels. The
        header tells how many there are; such a picture is not decoded.
    """
    with open_regular(path) as file, _no_limit_of_pillow(), warnings.catch_warnings():
        # About metadata that are not read here; what makes a picture unreadable is an exception.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            image = Image.open(file)
        except Exception as error:  # a decoder meets any bytes, and may raise anything
            raise FileError(_not_a_picture(path, file)) from error
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise FileError(
                f"{path}: {width}×{height} pixels; at most {MOST_PIXELS:,} are accepted: shrink it first"
            )
        try:
            pixels = _decode(image, side)
        except MemoryError:
            raise
        except Exception as error:
            raise FileError(f"{path}: cannot be read as a picture: {first_line(error)}") from error
    if not np.isfinite(pixels).all():
        raise FileError(f"{path}: has pixels that are not finite numbers")
    return pixels


def grey(image: np.ndarray) -> np.ndarray:
    """The luminance (1, H, W) of a picture (1, H, W) or (3, H, W)."""
    if len(image) == 1:
        return image
    # Weights that add up to a little over 1 in float32 must not lead out of the range.
    return np.minimum(np.tensordot(_LUMA, image, 1), 1)[None]


@contextlib.contextmanager
def _no_limit_of_pillow() -> Iterator[None]:
    """Pillow warns of half as many pixels as it refuses; here one limit holds, which is `MOST_PIXELS`."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _not_a_picture(path: Path, file: BinaryIO) -> str:
    file.seek(0)
    start = file.read(12)
    if not start:
        return f"{path}: is empty"
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        if pillow_heif is None:
            return f"{path}: is HEIC; pip install pillow-heif, or save it as JPEG"
        return f"{path}: cannot be read as a picture: damaged HEIC"
    return f"{path}: cannot be read as a picture: damaged, or of a format that Pillow does not know"


def _decode(image: Image.Image, side: int | None) -> np.ndarray:
    if side is not None:  # how far JPEG's decoder can shrink by itself, it does
        factor = max(1.0, max(image.size) / side)
        image.draft(None, (math.ceil(image.width / factor), math.ceil(image.height / factor)))
    image.load()
    factor = 1 if side is None else math.ceil(max(image.size) / side)
    read = _deep if image.mode.startswith("I") or image.mode == "F" else _shallow
    return np.ascontiguousarray(_UPRIGHT.get(_orientation(image), _as_stored)(read(image, factor)))


def _deep(image: Image.Image, factor: int) -> np.ndarray:
    """Grey of more than 8 bits, (1, H, W)."""
    values = np.asarray(image)
    largest = values.max()
    if values.dtype.kind != "f":
        largest = next(2**bits - 1 for bits in _BIT_DEPTHS if largest < 2**bits)
    values = values.astype(np.uint16 if values.dtype.itemsize == 2 else np.float32)  # in this machine's order
    if factor > 1:
        size = [math.ceil(length / factor) for length in image.size]
        values = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
    with np.errstate(invalid="ignore"):  # not finite: refused by name
        return np.clip(values / np.float32(max(largest, 1)), 0, 1).astype(np.float32)[None]


def _shallow(image: Image.Image, factor: int) -> np.ndarray:
    """Grey or colours of 8 bits, (1, H, W) or (3, H, W)."""
    transparent = image.has_transparency_data
    if image.mode == "1":
        image = image.convert("L")
    if image.mode in ("P", "PA") or (transparent and image.mode not in ("LA", "RGBA")):
        image = image.convert("RGBA" if transparent else "RGB")  # a palette's numbers have no mean
    image = image.reduce(factor) if factor > 1 else image
    image = image.convert("RGBA" if transparent else "L" if image.mode == "L" else "RGB")
    pixels = np.asarray(image, np.float32) / np.float32(255)
    pixels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    return _on_paper(pixels) if transparent else pixels


def _on_paper(pixels: np.ndarray) -> np.ndarray:
    """The colours of (R, G, B, alpha) on black, or on white where what is opaque is dark."""
    colours, alpha = pixels[:3], pixels[3]
    paper = 1 if (grey(colours)[0] * alpha).sum() < alpha.sum() / 2 else 0
    return colours * alpha + paper * (1 - alpha)


def _as_stored(pixels: np.ndarray) -> np.ndarray:
    return pixels


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF does not make a picture unreadable
        return 1


# What makes pixels (C, H, W) upright, by EXIF's orientation.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, :, ::-1],
    3: lambda pixels: pixels[:, ::-1, ::-1],
    4: lambda pixels: pixels[:, ::-1],
    5: lambda pixels: pixels.swapaxes(1, 2),
    6: lambda pixels: np.rot90(pixels, -1, (1, 2)),
    7: lambda pixels: np.rot90(pixels, 2, (1, 2)).swapaxes(1, 2),
    8: lambda pixels: np.rot90(pixels, 1, (1, 2)),
}
