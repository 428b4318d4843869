"""The article's figures: the degradation, the architecture, and digits restored."""

import io
from collections.abc import Mapping
from pathlib import Path

import cv2
import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon
from matplotlib.transforms import Affine2D

from srmnist import checkpoint
from srmnist.data import load_dataset, to_float
from srmnist.degradation import check_size, degrade
from srmnist.device import device_errors, select_device
from srmnist.errors import UserError
from srmnist.evaluation import restore, squared_errors
from srmnist.files import write_whole
from srmnist.model import CNNAE

_DPI = 200  # twice the width of a README's column, for sharp screens
_DIGITS = 10  # as in the author's script
_GREY = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that a notebook shows as it is.

    It is not one of pyplot's, so that no backend is chosen for the user and nothing stays open; a notebook
    that has not loaded pyplot would print such a figure's name only.
    """

    def _repr_png_(self) -> bytes:
        return png(self)


def write_figures(
    model_file: Path,
    out: Path,
    data: str | Path | None = None,
    size: int = 10,
    seed: int = 0,
    hardest: bool = False,
    gpu: int = -1,
) -> list[Path]:
    """Restore ten test images with trained weights and write the article's figures.

    Parameters
    ----------
    model_file : Path
        Weights of `CNNAE`, Chainer's npz.
    out : Path
        Directory for the figures; made if it does not exist.
    data : path, optional
        Directory of IDX files; None is the embedded MNIST.
    size : int, default 10
        Height and width that the images are shrunk to.
    seed : int, default 0
        Fixes which ten test images are drawn.
    hardest : bool, default False
        Take the ten that are restored worst instead, the worst first.
    gpu : int, default -1
        CUDA device number; negative is the CPU.

    Returns
    -------
    list of Path
        The files written: ``corrupt.png``, ``model.png``, ``output.png`` and each image's ``input_NN.png``
        and ``output_NN.png``.

    Raises
    ------
    UserError
        If a file or the device is not usable; nothing has then been written.
    """
    if not model_file.exists():
        raise UserError(f"--model: there is no {model_file}; scripts/train.py writes results/model.npz")
    device = select_device(gpu)
    model = CNNAE()
    checkpoint.load_weights(model_file, model)
    with device_errors(gpu):
        model.to_device(device)
    originals = to_float(load_dataset(data).test.images)
    check_size(size, originals)
    if not hardest:
        count = min(_DIGITS, len(originals))
        originals = originals[np.random.default_rng(seed).choice(len(originals), count, replace=False)]
    degraded = degrade(originals, size)
    with device_errors(gpu):
        restored = restore(model, degraded)
    if hardest:
        errors = squared_errors(restored, originals)
        worst = np.argsort(-errors, kind="stable")[:_DIGITS]
        originals, degraded, restored = originals[worst], degraded[worst], restored[worst]

    pictures = {
        "corrupt.png": png(draw_degradation(originals[0], degraded[0], size)),
        "model.png": png(draw_model(model, degraded[0], restored[0])),
        "output.png": png(draw_rows({"input": degraded, "output": restored, "original": originals})),
    }
    for number, (before, after) in enumerate(zip(degraded, restored, strict=True)):
        pictures[f"input_{number:02d}.png"] = grey_png(before)
        pictures[f"output_{number:02d}.png"] = grey_png(after)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: {out}: cannot write there: {error.strerror}") from error
    for name, content in pictures.items():
        write_whole(out / name, lambda file, content=content: file.write(content))
    return [out / name for name in pictures]


def show_grid(model: CNNAE, originals: np.ndarray, size: int | tuple[int, int] = 10) -> Figure:
    """Degrade images, restore them, and draw them in three rows: input, output, original.

    Parameters
    ----------
    model : CNNAE
        On any device.
    originals : ndarray of float32, shape (N, 1, H, W)
        About ten images, intensities in [0, 1].
    size : int or (int, int), default 10
        Height and width to shrink to.

    Returns
    -------
    matplotlib.figure.Figure
        A notebook shows it; ``savefig`` writes it.
    """
    degraded = degrade(originals, size)
    return draw_rows({"input": degraded, "output": restore(model, degraded), "original": originals})


def draw_rows(rows: Mapping[str, np.ndarray]) -> Figure:
    """Rows of images, each with its name on the left.

    Parameters
    ----------
    rows : mapping of str to ndarray, shape (N, 1, H, W)
        As many images in each, intensities in [0, 1].
    """
    columns = len(next(iter(rows.values())))
    figure = Figure(figsize=(0.9 + 0.85 * columns, 0.85 * len(rows) + 0.05), dpi=_DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, (name, images) in zip(grid, rows.items(), strict=True):
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=12)
        for ax, image in zip(axes, images, strict=True):
            _draw_image(ax, image)
    return figure


def draw_degradation(original: np.ndarray, degraded: np.ndarray, size: int) -> Figure:
    """An image beside what the degradation leaves of it.

    Parameters
    ----------
    original, degraded : ndarray, shape (1, H, W)
    size : int
        Height and width that it was shrunk to.
    """
    height, width = original.shape[1:]
    figure = Figure(figsize=(6.4, 3.4), dpi=_DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    left, right = figure.subplots(1, 2)
    for ax, image, title in (
        (left, original, f"original, {height}×{width}"),
        (right, degraded, f"degraded: {height}×{width} → {size}×{size} → {height}×{width}"),
    ):
        ax.set_title(title, fontsize=10, pad=8)
        _draw_image(ax, image)
    return figure


def draw_model(model: CNNAE, degraded: np.ndarray, restored: np.ndarray) -> Figure:
    """The architecture: each layer's operation and the shape of what it gives.

    Parameters
    ----------
    model : CNNAE
        Channels, kernels and biases are read from it.
    degraded, restored : ndarray, shape (1, H, W)
        What is drawn on the input and on the output.
    """
    figure = Figure(figsize=(10, 2.05), dpi=_DPI)
    ax = figure.add_axes((0, 0, 1, 1))
    right = _draw_block(ax, 0, degraded.shape, "input", degraded)
    for number in (1, 2, 3, 4):
        conv = model[f"conv{number}"]
        activation = "BN · ReLU" if hasattr(model, f"bn{number}") else "sigmoid"
        bias = "no bias" if conv.b is None else "bias"
        left = right + 1.2
        ax.annotate("", (left, 0.5), (right + 0.05, 0.5), arrowprops={"arrowstyle": "->", "color": "0.3"})
        middle = (right + left) / 2
        ax.text(middle, 0.55, f"conv{number} {conv.ksize}×{conv.ksize}\n{bias}", ha="center", va="bottom")
        ax.text(middle, 0.43, activation, ha="center", va="top")
        shape = (conv.out_channels, *degraded.shape[1:])
        name, image = ("output", restored) if number == 4 else ("", None)
        right = _draw_block(ax, left, shape, name, image)
    ax.set(xlim=(-0.25, right + 0.25), ylim=(-0.3, 1.6), aspect="equal")
    ax.axis("off")
    return figure


# Where a block's far edge lies, seen at an angle, and how thick one channel is drawn (a height is 1).
_SLANT = np.array([0.42, 0.3])
_CHANNEL = 0.014


def _draw_block(
    ax: Axes, left: float, shape: tuple[int, ...], name: str = "", image: np.ndarray | None = None
) -> float:
    """Draw a feature map as a block, as thick as it has channels; return its right end."""
    thickness = shape[0] * _CHANNEL
    near = np.array([[left, 0], [left + thickness, 0], [left + thickness, 1], [left, 1]])
    top = np.array([near[3], near[2], near[2] + _SLANT, near[3] + _SLANT])
    side = np.array([near[1], near[1] + _SLANT, near[2] + _SLANT, near[2]])
    for face, color in ((near, "#9db8d9"), (top, "#d7e3f1"), (side, "#bccfe6")):
        ax.add_patch(Polygon(face, facecolor=color, edgecolor="0.25", linewidth=0.8))
    if image is not None:
        slanted = Affine2D.from_values(*_SLANT, 0, 1, left + thickness, 0) + ax.transData
        ax.imshow(image[0], extent=(0, 1, 0, 1), transform=slanted, zorder=2, **_GREY)
    right = left + thickness + _SLANT[0]
    middle = (left + right) / 2
    ax.text(middle, -0.06, "×".join(map(str, shape)), ha="center", va="top", weight="bold")
    ax.text(middle, 1 + _SLANT[1] + 0.06, name, ha="center", va="bottom")
    return right


def _draw_image(ax: Axes, image: np.ndarray) -> None:
    ax.imshow(image[0], **_GREY)
    ax.set(xticks=[], yticks=[])


def png(figure: matplotlib.figure.Figure) -> bytes:
    """A figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def grey_png(image: np.ndarray) -> bytes:
    """An image of shape (1, H, W) as a PNG file, with OpenCV and the rounding of the author's script."""
    _, content = cv2.imencode(".png", np.squeeze(image * 255).astype(np.uint8))
    return content.tobytes()
