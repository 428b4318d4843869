"""Ten images while a network learns to restore them: a figure that is redrawn, and a GIF."""

import io
from collections.abc import Mapping, Sequence

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from srmnist.figures import Figure

_DPI = 100
_IMAGE = 84  # pixels of the figure for an image: MNIST's 28 three times
_LEFT, _RIGHT = 70, 12  # pixels beside the images
_TITLE, _BETWEEN, _CURVE, _LABELS = 34, 22, 130, 44  # pixels, from the top down; the images come second
_WIDTH, _ROWS = _IMAGE * 10 + 27, _IMAGE * 3 + 6
_SIZE = np.array([_LEFT + _WIDTH + _RIGHT, _TITLE + _ROWS + _BETWEEN + _CURVE + _LABELS])

_FIRST, _EACH, _LAST = 1500, 800, 4000  # milliseconds that a frame stays

# A palette for all frames; with one each, greys would flicker. It has greys, and mixtures of white and the
# curve's colour, which is matplotlib's first.
_BLUE = np.array([31, 119, 180])
_GREYS, _BLUES = 56, 8
_PALETTE = [
    *np.repeat(np.linspace(0, 255, _GREYS).round().astype(int), 3).tolist(),
    *(255 + np.outer(np.arange(1, _BLUES + 1) / _BLUES, _BLUE - 255)).round().astype(int).ravel().tolist(),
]

_FRACTIONS = {1 / 64: "1/64", 1 / 16: "1/16", 1 / 4: "1/4"}
_LEVELS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2]

_with_defaults = matplotlib.style.context("default")


class LearningFigure(Figure):
    """Rows of images (input, output, original), and the loss curve below them.

    All parts stay where they are when `set_moment` changes the output and lengthens the curve.

    Parameters
    ----------
    degraded, originals : ndarray of uint8, shape (N, H, W)
        Grey values of at most ten images.
    images : int
        The number of training images.
    epochs : float
        Where the curve will end.
    """

    @_with_defaults
    def __init__(self, degraded: np.ndarray, originals: np.ndarray, images: int, epochs: float) -> None:
        super().__init__(figsize=tuple(_SIZE / _DPI), dpi=_DPI)
        self._degraded, self._originals, self._images = degraded, originals, images
        self._add_rows()
        above = 1 - 0.55 * _TITLE / _SIZE[1]
        self._title = self.text(_LEFT / _SIZE[0], above, "", fontsize=12, weight="bold", va="center")
        self._error = self.text(1 - _RIGHT / _SIZE[0], above, "", fontsize=10, va="center", ha="right")
        self._add_curve(epochs)

    @_with_defaults
    def set_moment(
        self,
        restored: np.ndarray,
        epochs: list[float],
        losses: list[float],
        log: Sequence[Mapping[str, float]] = (),
    ) -> None:
        """Show a moment of a run.

        Parameters
        ----------
        restored : ndarray of uint8, shape (N, H, W)
            The network's output at that moment.
        epochs : list of float
            The moments up to this one.
        losses : list of float
            The mean squared error of the images at these moments.
        log : sequence of mapping, optional
            The losses of whole epochs, as in the file ``log`` of a run.
        """
        self._picture.set_data(self._mosaic(restored))
        self._title.set_text(describe(epochs[-1], self._images))
        self._error.set_text(f"mean squared error of these digits: {losses[-1]:.4f}")
        self._line.set_data(epochs, losses)
        if log:
            for name, line in self._whole.items():
                line.set_data([entry["epoch"] for entry in log], [entry[name] for entry in log])
            handles = [self._line, *self._whole.values()]
            self._curve.legend(handles=handles, loc="upper right", frameon=False, fontsize=9)
        lowest, highest = self._curve.get_ylim()
        self._curve.set_ylim(min(lowest, 0.8 * losses[-1]), max(highest, 1.25 * losses[-1]))

    @_with_defaults
    def frames(
        self, epochs: list[float], losses: list[float], restored: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """The figure at each moment of a run; for the parameters see `set_moment`.

        Only what changes from moment to moment is drawn again: that takes a tenth of the time.

        Returns
        -------
        list of ndarray of uint8, shape (H, W, 3)
        """
        # A scale that does not change.
        self._curve.set_ylim(0.8 * min(losses), max(self._curve.get_ylim()[1], 1.25 * max(losses)))
        moving = self._picture, self._title, self._error, self._line
        for artist in moving:
            artist.set_animated(True)
        canvas = FigureCanvasAgg(self)
        canvas.draw()
        still = canvas.copy_from_bbox(self.bbox)
        drawn = []
        for number, output in enumerate(restored, 1):
            self.set_moment(output, epochs[:number], losses[:number])
            canvas.restore_region(still)
            for artist in moving:
                self.draw_artist(artist)
            drawn.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        return drawn

    def _add_rows(self) -> None:
        ax = self.add_axes(_area(_TITLE, _ROWS))
        blank = np.zeros_like(self._originals)
        self._picture = ax.imshow(
            self._mosaic(blank), cmap="gray", vmin=0, vmax=255, interpolation="nearest", resample=False
        )
        height = self._originals.shape[1]
        middles = np.arange(3) * (height + 1) + (height - 1) / 2
        ax.set(xticks=[], yticks=middles, yticklabels=["input", "output", "original"], anchor="W")
        ax.tick_params(length=0, labelsize=10)
        ax.spines[:].set_visible(False)

    def _add_curve(self, epochs: float) -> None:
        self._curve = ax = self.add_axes(_area(_TITLE + _ROWS + _BETWEEN, _CURVE))
        difference = self._degraded.astype(float) - self._originals
        degraded_loss = max(float(np.mean((difference / 255) ** 2)), 1e-6)
        (self._line,) = ax.plot(
            [], [], "o-", color=_BLUE / 255, markersize=4, clip_on=False, label="these digits"
        )
        labels = {"main/loss": "all training images", "validation/main/loss": "all test images"}
        self._whole = {
            name: ax.plot([], [], "x", color=color, clip_on=False, label=label)[0]
            for (name, label), color in zip(labels.items(), ("C1", "C2"), strict=True)
        }
        ax.axhline(degraded_loss, color="0.55", linestyle="--", linewidth=1)
        ax.annotate(
            "the input's",
            (0, degraded_loss),
            (4, 3),
            ("axes fraction", "data"),
            "offset points",
            va="bottom",
            fontsize=9,
            color="0.45",
        )
        # The fourth root shows the first steps as well as the last epochs, and has a place for 0.
        ax.set_xscale("function", functions=(lambda x: np.maximum(x, 0) ** 0.25, lambda x: x**4))
        ax.set_yscale("log")
        end = max(epochs, 1 / 64)
        ax.set_xticks(_ticks(end), [_FRACTIONS.get(tick, f"{tick:.4g}") for tick in _ticks(end)])
        ax.set_yticks(_LEVELS, [f"{level:g}" for level in _LEVELS])
        ax.set(xlim=(0, end), ylim=(degraded_loss / 4, 0.25))
        ax.set(xlabel="epochs", ylabel="mean squared error")
        ax.minorticks_off()
        ax.tick_params(labelsize=9)
        ax.spines[["top", "right"]].set_visible(False)

    def _mosaic(self, restored: np.ndarray) -> np.ndarray:
        """All rows as one image, with a white line between the images."""
        rows = [
            np.hstack([np.pad(image, ((0, 1), (0, 1)), constant_values=255) for image in row])
            for row in (self._degraded, restored, self._originals)
        ]
        return np.vstack(rows)[:-1, :-1]


def describe(epoch: float, images: int) -> str:
    """How far a run is: "after 960 images", "after 1 epoch"."""
    if epoch == 0:
        return "before training"
    if epoch < 1:
        return f"after {round(epoch * images):,} images"
    # The last batch of an epoch may belong to the next one in part.
    whole = epoch - int(epoch) < 0.05
    number = f"{int(epoch)}" if whole else f"{epoch:.1f}"
    return f"after {number} epoch{'' if number == '1' else 's'}"


def gif(frames: Sequence[np.ndarray]) -> bytes:
    """An animation that repeats; its first and last frame stay longer than the others.

    Parameters
    ----------
    frames : sequence of ndarray of uint8, shape (H, W, 3)
        Grey pictures with blue lines.
    """
    pictures = [Image.fromarray(_indexed(frame)) for frame in frames]
    for picture in pictures:
        picture.putpalette(_PALETTE)
    first, *others = pictures
    times = [_FIRST, *[_EACH] * (len(others) - 1), _LAST] if others else [_LAST]
    file = io.BytesIO()
    first.save(file, format="GIF", save_all=True, append_images=others, duration=times, loop=0)
    return file.getvalue()


def _indexed(frame: np.ndarray) -> np.ndarray:
    """The palette's nearest colour for each pixel; Pillow's own search makes white grey."""
    red, green, blue = (frame[..., channel].astype(np.int16) for channel in range(3))
    grey = (green * (_GREYS - 1) + 127) // 255
    # On white: the less red, the more of the curve's colour.
    missing, most = 255 - red, 255 - _BLUE[0]
    coloured = _GREYS - 1 + np.minimum((missing * _BLUES + most // 2) // most, _BLUES)
    return np.where(blue - red > 16, coloured, grey).astype(np.uint8)


def _area(top: float, height: float) -> tuple[float, float, float, float]:
    """Place of an axes in the figure, from pixels: matplotlib counts from the lower left corner."""
    return _LEFT / _SIZE[0], 1 - (top + height) / _SIZE[1], _WIDTH / _SIZE[0], height / _SIZE[1]


def _ticks(epochs: float) -> list[float]:
    """Places for labels below the curve, far enough from each other."""
    places = [0.0, *(2.0**power for power in (-6, -4, -2, *range(32)))]
    kept = [float(epochs)]
    for place in reversed(places):
        if kept[-1] ** 0.25 - place**0.25 > 0.06 * epochs**0.25:
            kept.append(place)
    return kept[::-1]
