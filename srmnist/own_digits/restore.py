"""Anybody's own digits: picture files in, restored pictures out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from srmnist.degradation import degrade, enlarge
from srmnist.figures import draw_side_by_side, grey_png, png
from srmnist.model import CNNAE
from srmnist.own_digits.layout import in_lines, on_page
from srmnist.own_digits.like_mnist import SIDE
from srmnist.own_digits.pictures import list_pictures, result_files
from srmnist.own_digits.prepare import Prepared, prepare
from srmnist.restoration import load_model, restore
from srmnist.system.errors import UserError
from srmnist.system.files import write_all
from srmnist.system.fonts import caption

_SHOWN_SIDE = 800  # pixels: of a large picture, more cannot be seen in the comparison
_BAND = 512  # rows of a large picture that the network sees at once
_REACH = 4  # rows that four 3×3 convolutions see above and below a pixel


@dataclass(frozen=True)
class Outcome:
    """What became of one picture.

    Attributes
    ----------
    number, total : int
        Which of how many pictures it is; a name that means no picture counts as one.
    files : list of Path
        What was written; nothing if there is an error.
    digits : int
        How many digits were restored.
    error : UserError or None
        Why the picture could not be restored.
    """

    number: int
    total: int
    files: list[Path] = field(default_factory=list)
    digits: int = 0
    error: UserError | None = None


def restore_files(
    images: Sequence[Path],
    model_file: Path,
    out: Path,
    size: int = 10,
    gpu: int = -1,
    shrink: bool = True,
    invert: bool | None = None,
) -> Iterator[Outcome]:
    """Restore the digits in picture files; write of each ``NAME_restored.png`` and ``NAME_compared.png``.

    The digits are found, made like MNIST's, degraded and restored one by one. ``NAME_restored.png`` has 28×28
    pixels for each, in lines as they are read: black on white if they are darker than the paper around them,
    else white on black. In ``NAME_compared.png`` several digits stand where they were found.

    Parameters
    ----------
    images : sequence of Path
        Files, directories or patterns, see `list_pictures` and `read_image`. A picture of at most
        `size`×`size` pixels is what is left of a digit: it is only enlarged to 28×28 and restored.
    model_file : Path
        Weights of `CNNAE`, Chainer's npz.
    out : Path
        Directory for the results, see `result_files`; made if it does not exist.
    size : int, default 10
        Height and width that digits are shrunk to.
    gpu : int, default -1
        CUDA device number; negative is the CPU.
    shrink : bool, default True
        Whether digits are found and degraded. If not, each picture is restored as it is, in its own size.
    invert : bool, optional
        Whether the digits are darker than the paper; None looks at each picture, see `prepare`.

    Returns
    -------
    iterator of Outcome
        One for each picture, when it is done. A picture that cannot be restored has an error and no files;
        the others are restored.

    Raises
    ------
    UserError
        If `size`, the weights, the device or `out` cannot be used.
    """
    if size > SIDE:
        raise UserError(f"--size {size}: at most {SIDE}, to which the images are enlarged again")
    model = load_model(model_file, gpu)

    def results(path: Path) -> tuple[bytes, bytes, int]:
        prepared = prepare(path, size, shrink, invert)
        degraded = _degraded(prepared.digits, size, shrink)
        restored = _in_bands(degraded, model)
        figure = draw_side_by_side(_panels(path.name, prepared, degraded, restored, size, shrink))
        result = in_lines(restored, prepared.places) if len(restored) > 1 else restored[0]
        return grey_png(1 - result if prepared.dark else result), png(figure), len(restored)

    return _outcomes(images, out, results)


def _outcomes(
    images: Sequence[Path], out: Path, results: Callable[[Path], tuple[bytes, bytes, int]]
) -> Iterator[Outcome]:
    pictures, errors = list_pictures(images)
    total = len(pictures) + len(errors)
    for number, error in enumerate(errors, 1):
        yield Outcome(number, total, error=error)
    files = result_files(pictures, out)
    for number, (picture, names) in enumerate(zip(pictures, files, strict=True), 1 + len(errors)):
        try:
            *contents, digits = results(picture)
        except UserError as error:
            yield Outcome(number, total, error=error)
            continue
        write_all(out, {})  # if the directory cannot be made, no other picture can be written either
        new = not names[0].exists()
        try:
            written = write_all(out, dict(zip((name.name for name in names), contents, strict=True)))
        except UserError as error:
            if new:
                names[0].unlink(missing_ok=True)  # one of the two says nothing
            yield Outcome(number, total, error=error)
        else:
            yield Outcome(number, total, written, digits)


def _degraded(digits: np.ndarray, size: int, shrink: bool) -> np.ndarray:
    """What the network is to see of digits (N, 1, H, W)."""
    if not shrink:
        return digits
    if max(digits.shape[2:]) <= size:
        return enlarge(digits, (SIDE, SIDE))
    return degrade(digits, size)


def _in_bands(degraded: np.ndarray, model: CNNAE) -> np.ndarray:
    """Restore images of any height, without the memory that a large one takes as a whole."""
    height = degraded.shape[2]
    bands = []
    for start in range(0, height, _BAND):
        above, below = min(start, _REACH), start + _BAND + _REACH
        band = restore(np.ascontiguousarray(degraded[:, :, start - above : below]), model)
        bands.append(band[:, :, above : above + _BAND])
    return np.concatenate(bands, axis=2)


def _panels(
    name: str, prepared: Prepared, degraded: np.ndarray, restored: np.ndarray, size: int, shrink: bool
) -> dict[str, np.ndarray]:
    """The steps from what was given to what was restored, each (C, H, W)."""
    steps = {} if not prepared.places else {"made like MNIST's": prepared.digits}
    if shrink:
        steps[f"degraded by {size}×{size}"] = degraded
    steps["restored"] = restored
    panels = {caption(name, "as given"): _for_show(prepared.given)}
    for title, digits in steps.items():
        shown = on_page(digits, prepared.places, prepared.given.shape[1:]) if len(digits) > 1 else digits[0]
        panels[title] = _for_show(1 - shown if prepared.dark else shown)
    return panels


def _for_show(image: np.ndarray) -> np.ndarray:
    """A picture (C, H, W), made smaller if it is large."""
    factor = _SHOWN_SIDE / max(image.shape[1:])
    if factor >= 1:
        return image
    size = [max(1, round(length * factor)) for length in image.shape[:0:-1]]
    return np.stack([cv2.resize(channel, size, interpolation=cv2.INTER_AREA) for channel in image])
