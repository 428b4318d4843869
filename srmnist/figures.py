"""All figures: those of the article, the loss curve, and plots of evaluations.

Each function draws with matplotlib's own defaults, because these figures do not work with every setting of a
user's matplotlibrc (LaTeX for all text, for example).
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import matplotlib.figure
import matplotlib.style
import numpy as np
from chainer import backend
from chainer.types import NdArray
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Polygon
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Affine2D

from srmnist.model import CNNAE
from srmnist.system.fonts import caption, families

_DPI = 200  # twice the width of a README's column, for sharp screens
_PLOT_DPI = 150
_GREY: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}

_with_defaults = matplotlib.style.context("default")


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that a notebook shows.

    It is made without pyplot, so no backend is chosen for the user, and no figure stays open. A notebook
    shows only pyplot's figures and objects with the method below.
    """

    def _repr_png_(self) -> bytes:
        return png(self)


def show_grid(inputs: NdArray, outputs: NdArray, originals: NdArray | None = None) -> Figure:
    """Draw images in rows, as the article does: the input, the output, and the original below them.

    Parameters
    ----------
    inputs, outputs : ndarray of float32, shape (N, 1, H, W)
        About ten degraded images and what the network makes of them, intensities in [0, 1]. NumPy or CuPy.
    originals : ndarray of float32, shape (N, 1, H, W), optional
        Without them there is no third row.

    Returns
    -------
    matplotlib.figure.Figure
        A notebook shows it; ``savefig`` writes it.
    """
    rows = {"input": inputs, "output": outputs}
    if originals is not None:
        rows["original"] = originals
    return draw_rows({name: backend.CpuDevice().send(images) for name, images in rows.items()})


@_with_defaults
def draw_rows(rows: Mapping[str, np.ndarray]) -> Figure:
    """Rows of images, each with its name on the left.

    Parameters
    ----------
    rows : mapping of str to ndarray, shape (N, 1, H, W)
        The same number of images in each, intensities in [0, 1].
    """
    columns = len(next(iter(rows.values())))
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=(0.9 + 0.85 * columns, 0.85 * len(rows) + 0.05), dpi=_DPI, layout=layout)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, (name, images) in zip(grid, rows.items(), strict=True):
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=12)
        for ax, image in zip(axes, images, strict=True):
            _draw_image(ax, image)
    return figure


@_with_defaults
def draw_side_by_side(images: Mapping[str, np.ndarray]) -> Figure:
    """Images beside each other, each under its title.

    Parameters
    ----------
    images : mapping of str to ndarray, shape (1, H, W), or (3, H, W) in colours
        Of any sizes, intensities in [0, 1]. `srmnist.system.fonts.caption` makes a title of a file's name.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(3.2 * len(images), 3.4), dpi=_DPI, layout=layout)
    (axes,) = figure.subplots(1, len(images), squeeze=False)
    for ax, (title, image) in zip(axes, images.items(), strict=True):
        # Dollar signs in a name are no mathematics.
        ax.set_title(title, fontsize=10, pad=8, parse_math=False, fontfamily=families(title))
        _draw_image(ax, image)
    return figure


def draw_degradation(original: np.ndarray, degraded: np.ndarray, size: int) -> Figure:
    """An image beside its degraded version.

    Parameters
    ----------
    original, degraded : ndarray, shape (1, H, W)
    size : int
        Height and width that the image was shrunk to.
    """
    shape = "×".join(map(str, original.shape[1:]))
    titles = f"original, {shape}", f"degraded: {shape} → {size}×{size} → {shape}"
    return draw_side_by_side(dict(zip(titles, (original, degraded), strict=True)))


@_with_defaults
def draw_model(model: CNNAE, degraded: np.ndarray, restored: np.ndarray) -> Figure:
    """The architecture: each layer's operation and the shape of its output.

    Parameters
    ----------
    model : CNNAE
        Channels, kernels and biases are read from the model.
    degraded, restored : ndarray, shape (1, H, W)
        The images that are drawn on the input and on the output.
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


# A block of height 1 is seen at an angle: the position of its far edge, and the thickness of one channel.
_SLANT = np.array([0.42, 0.3])
_CHANNEL = 0.014


def _draw_block(
    ax: Axes, left: float, shape: tuple[int, ...], name: str = "", image: np.ndarray | None = None
) -> float:
    """Draw a feature map as a block whose thickness shows its channels; return its right end."""
    thickness = shape[0] * _CHANNEL
    near = np.array([[left, 0], [left + thickness, 0], [left + thickness, 1], [left, 1]])
    top = np.array([near[3], near[2], near[2] + _SLANT, near[3] + _SLANT])
    side = np.array([near[1], near[1] + _SLANT, near[2] + _SLANT, near[2]])
    for face, color in ((near, "#9db8d9"), (top, "#d7e3f1"), (side, "#bccfe6")):
        ax.add_patch(Polygon(face, facecolor=color, edgecolor="0.25", linewidth=0.8))
    if image is not None:
        slanted = Affine2D.from_values(_SLANT[0], _SLANT[1], 0, 1, left + thickness, 0) + ax.transData
        ax.imshow(image[0], extent=(0, 1, 0, 1), transform=slanted, zorder=2, **_GREY)
    right = left + thickness + _SLANT[0]
    middle = (left + right) / 2
    ax.text(middle, -0.06, "×".join(map(str, shape)), ha="center", va="top", weight="bold")
    ax.text(middle, 1 + _SLANT[1] + 0.06, name, ha="center", va="bottom")
    return right


def _draw_image(ax: Axes, image: np.ndarray) -> None:
    ax.imshow(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1), **_GREY)
    ax.set(xticks=[], yticks=[])


@_with_defaults
def draw_psnr(psnr: Mapping[str, np.ndarray]) -> Figure:
    """Histograms of PSNR.

    Parameters
    ----------
    psnr : mapping of str to ndarray of float64, shape (N,)
        For each name the PSNR of the images in dB. Infinite values are left out.
    """
    figure = Figure(figsize=(7, 3.2), dpi=_PLOT_DPI, layout="constrained")
    ax = figure.subplots()
    finite = {name: values[np.isfinite(values)] for name, values in psnr.items()}
    finite = {name: values for name, values in finite.items() if values.size}
    lowest = min((values.min() for values in finite.values()), default=0)
    highest = max((values.max() for values in finite.values()), default=1)
    bins = np.linspace(lowest, highest, 81).tolist()
    for number, (name, values) in enumerate(finite.items()):
        label = f"{name}, mean {values.mean():.2f} dB"
        ax.hist(values, bins, alpha=0.6, color=f"C{number}", label=label)
        ax.axvline(values.mean(), color=f"C{number}", linestyle="--", linewidth=1)
    ax.set(xlabel="PSNR of an image [dB]", ylabel="images")
    _finish(ax)
    return figure


@_with_defaults
def draw_losses(log: Sequence[Mapping[str, float]]) -> Figure:
    """The loss curve: the training and the validation loss of each epoch.

    Parameters
    ----------
    log : sequence of mapping
        An entry for each epoch, as in the file ``log`` of a run.
    """
    figure = Figure(figsize=(6.4, 4.0), dpi=_PLOT_DPI, layout="constrained")
    ax = figure.subplots()
    epochs = [entry["epoch"] for entry in log]
    for name in ("main/loss", "validation/main/loss"):
        ax.plot(epochs, [entry[name] for entry in log], marker="x", label=name)
    ax.set(xlabel="epoch", ylabel="mean squared error")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(ax)
    return figure


@_with_defaults
def draw_quality(curves: Mapping[str, Sequence[tuple[float, float, int]]]) -> Figure:
    """The error of several ways to train against the time that they take.

    Parameters
    ----------
    curves : mapping of str to sequence of (float, float, int)
        For each way, (seconds, validation MSE, number of seeds) by increasing seconds. The mark of a single
        seed is hollow.
    """
    figure = Figure(figsize=(6.4, 4.0), dpi=_PLOT_DPI, layout="constrained")
    ax = figure.subplots()
    for name, points in curves.items():
        seconds, errors, seeds = (np.array(values) for values in zip(*points, strict=True))
        (line,) = ax.plot(seconds, errors, marker="o", markersize=4, label=name)
        single = seeds == 1
        ax.plot(seconds[single], errors[single], "o", markersize=4, color=line.get_color(), mfc="white")
    ax.set(xlabel="seconds", ylabel="validation MSE", xscale="log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    _finish(ax)
    return figure


@_with_defaults
def draw_sizes(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """PSNR and readability against the size that images were shrunk to.

    Parameters
    ----------
    metrics : sequence of mapping
        The contents of several ``metrics.json``, of one data set or of more.
    """
    figure = Figure(figsize=(11, 3.8), dpi=_PLOT_DPI, layout="constrained")
    axes = figure.subplots(1, 2)
    styles = {"restored": "o-", "degraded": "v--", "original": "s:"}
    for number, data in enumerate(dict.fromkeys(each["data"] for each in metrics)):
        chosen = sorted((each for each in metrics if each["data"] == data), key=lambda each: each["size"])
        sizes = [each["size"] for each in chosen]
        for ax, measure in zip(axes, ("psnr_mean", "readability"), strict=True):
            for row, style in styles.items():
                values = [each["rows"][row][measure] for each in chosen]
                if any(value is not None for value in values):
                    points = [np.nan if value is None else value for value in values]
                    label = caption(data, row)
                    ax.plot(sizes, points, style, markersize=4, color=f"C{number}", label=label)
    axes[0].set(ylabel="PSNR, mean over images [dB]")
    axes[1].set(ylabel="share of images that 1-NN recognises")
    for ax in axes:
        ax.set(xlabel="size shrunk to [pixels]", xticks=sorted({each["size"] for each in metrics}))
        _finish(ax)
    return figure


def _finish(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_legend_handles_labels()[0]:
        for text in ax.legend(frameon=False, fontsize="small").get_texts():
            text.set(parse_math=False, fontfamily=families(text.get_text()))


@_with_defaults
def png(figure: matplotlib.figure.Figure) -> bytes:
    """A figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def grey_png(image: np.ndarray) -> bytes:
    """An image of shape (1, H, W) as a PNG file: OpenCV's, with the rounding of the author's script."""
    _, content = cv2.imencode(".png", np.squeeze(image * 255).astype(np.uint8))
    return content.tobytes()
