"""Evaluation: a whole test set restored by a trained model, measured beside simpler ways to enlarge it."""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from srmnist.data import Dataset, load_dataset, to_float
from srmnist.degradation import check_size, enlarge, shrink
from srmnist.evaluation.interpolation import INTERPOLATIONS, interpolate
from srmnist.evaluation.metrics import SSIM_WINDOW, nearest_labels, psnr, squared_errors, ssim
from srmnist.figures import draw_psnr, png, show_grid
from srmnist.restoration import load_model, restore
from srmnist.system.device import device_errors, select_device
from srmnist.system.files import FileError, read_regular, write_all

DEGRADED, RESTORED, ORIGINAL = "degraded", "restored", "original"

# Training images that the digits are compared with: all 60,000 would take three times as long.
NEIGHBOURS = 20_000
_HARDEST = 12
_LARGEST_REPORT = 1 << 20


@dataclass(frozen=True)
class Scores:
    """What was measured on each image.

    Attributes
    ----------
    squared_error : ndarray of float64, shape (N,)
        Mean squared error.
    ssim : ndarray of float64, shape (N,), or None
        Structural similarity; None for images smaller than its window.
    readable : ndarray of bool, shape (N,), or None
        Whether its nearest neighbour among training images has its label; None without labels.
    """

    squared_error: np.ndarray
    ssim: np.ndarray | None
    readable: np.ndarray | None

    def summary(self, chosen: np.ndarray | slice = slice(None)) -> "Summary":
        """Means over some of the images."""
        errors = self.squared_error[chosen]
        return Summary(
            mse=float(errors.mean()),
            psnr_mean=float(psnr(errors).mean()),
            psnr_of_mse=float(psnr(errors.mean())),
            ssim=None if self.ssim is None else float(self.ssim[chosen].mean()),
            readability=None if self.readable is None else float(self.readable[chosen].mean()),
        )


@dataclass(frozen=True)
class Summary:
    """Measures of a set of images.

    Attributes
    ----------
    mse : float
        Mean squared error, intensities in [0, 1].
    psnr_mean, psnr_of_mse : float
        The mean of the images' PSNR, and the PSNR of the mean squared error, in dB.
    ssim : float or None
        Mean structural similarity.
    readability : float or None
        Share of digits that a 1-nearest-neighbour classifier recognises.
    """

    mse: float
    psnr_mean: float
    psnr_of_mse: float
    ssim: float | None
    readability: float | None


def evaluate(
    model_file: Path,
    out: Path,
    data: str | None = None,
    size: int = 10,
    gpu: int = -1,
    terminal: TextIO | None = None,
) -> list[Path]:
    """Measure trained weights on a test set; write ``metrics.json``, ``metrics.png`` and ``hardest.png``.

    Parameters
    ----------
    model_file : Path
        Weights of `CNNAE`, Chainer's npz.
    out : Path
        Directory for the files; made if it does not exist.
    data : str, optional
        Directory of IDX files; None is the embedded MNIST.
    size : int, default 10
        Height and width that the images are shrunk to.
    gpu : int, default -1
        CUDA device number; negative is the CPU.
    terminal : text stream, optional
        Takes the tables, line by line as they are measured; by default standard output.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    UserError
        If a file or the device is not usable; nothing has then been written.
    """
    terminal = terminal or sys.stdout
    model = load_model(model_file, gpu)
    dataset = load_dataset(data)
    originals = to_float(dataset.test.images)
    check_size(size, originals)
    judge = Judge(dataset, originals, gpu)
    shrunk = shrink(originals, size)
    degraded = enlarge(shrunk, originals.shape[2:])
    restored = restore(degraded, model)

    scores = {}
    print(_HEADER, file=terminal)
    for name, images in _rows(shrunk, degraded, restored, originals):
        scores[name] = judge.scores(images)
        print(_line(name, scores[name].summary()), file=terminal, flush=True)
    classes = _classes(dataset.test.labels)
    if len(classes) > 1:
        print(_class_table(classes, scores), file=terminal)

    worst = np.argsort(-scores[RESTORED].squared_error, kind="stable")[:_HARDEST]
    report = {
        "data": "MNIST" if data is None else Path(data).resolve().name,
        "size": size,
        "images": len(originals),
        "neighbours": judge.neighbours,
        "rows": {name: _jsonable(row.summary()) for name, row in scores.items()},
        "classes": {
            label: {name: _jsonable(scores[name].summary(chosen)) for name in (DEGRADED, RESTORED, ORIGINAL)}
            for label, chosen in classes.items()
        },
    }
    errors = {name: scores[name].squared_error for name in (DEGRADED, RESTORED)}
    return write_all(
        out,
        {
            "metrics.json": (json.dumps(report, indent=2) + "\n").encode(),
            "metrics.png": png(draw_psnr({name: psnr(values) for name, values in errors.items()})),
            "hardest.png": png(show_grid(degraded[worst], restored[worst], originals[worst])),
        },
    )


def load_reports(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Read what evaluations have written to ``metrics.json``.

    Raises
    ------
    FileError
        If a file cannot be read or is no such report.
    """
    return [_load_report(path) for path in files]


def _load_report(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(read_regular(path, _LARGEST_REPORT))
        rows = [report["rows"][name] for name in (DEGRADED, RESTORED, ORIGINAL)]
        measured = [row[measure] for row in rows for measure in ("psnr_mean", "readability")]
        numbers = [report["size"], *(value for value in measured if value is not None)]
        if not all(isinstance(number, int | float) for number in numbers):
            raise TypeError
        return {**report, "data": str(report["data"])}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(f"{path}: not a metrics.json that scripts/evaluate.py has written") from error


class Judge:
    """Measures images against `originals`, a data set's test images as float32 (N, 1, H, W).

    Attributes
    ----------
    neighbours : int
        Training images that its 1-nearest-neighbour classifier compares with; 0 where there are no labels.
    """

    def __init__(self, dataset: Dataset, originals: np.ndarray, gpu: int = -1) -> None:
        self._originals = originals
        self._labels = dataset.test.labels
        self._gpu, self._device = gpu, select_device(gpu)
        train = dataset.train
        self.neighbours = 0
        if train.labels is not None and self._labels is not None:
            self._known_labels = train.labels[:NEIGHBOURS]
            with device_errors(gpu):
                self._known = self._device.send(to_float(train.images[:NEIGHBOURS]))
            self.neighbours = len(self._known)

    def scores(self, images: np.ndarray) -> Scores:
        """Measure images (N, 1, H, W), each against the original of the same number."""
        readable = None
        if self.neighbours:
            with device_errors(self._gpu):
                found = nearest_labels(self._device.send(images), self._known, self._known_labels)
            readable = found == self._labels
        fits = min(images.shape[2:]) >= SSIM_WINDOW
        return Scores(
            squared_errors(images, self._originals),
            ssim(images, self._originals) if fits else None,
            readable,
        )


def _rows(
    shrunk: np.ndarray, degraded: np.ndarray, restored: np.ndarray, originals: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    yield DEGRADED, degraded
    for name, interpolation in INTERPOLATIONS.items():
        yield name, interpolate(shrunk, originals.shape[2:], interpolation)
    yield RESTORED, restored
    yield ORIGINAL, originals


def _classes(labels: np.ndarray | None) -> dict[str, np.ndarray]:
    """For each class which images are of it."""
    return {} if labels is None else {str(label): labels == label for label in np.unique(labels)}


def _jsonable(summary: Summary) -> dict[str, float | None]:
    """JSON has no infinity, which is the PSNR of an image without error."""
    return {
        name: None if value is None or math.isinf(value) else value for name, value in asdict(summary).items()
    }


_HEADER = f"{'':10}{'MSE':>9}{'PSNR':>9}{'of mean MSE':>13}{'SSIM':>8}{'1-NN':>8}"


def _line(name: str, row: Summary) -> str:
    return (
        f"{name:10}{row.mse:9.6f}{_decibels(row.psnr_mean):>9}{_decibels(row.psnr_of_mse):>13}"
        f"{_share(row.ssim):>8}{_share(row.readability):>8}"
    )


def _class_table(classes: dict[str, np.ndarray], scores: dict[str, Scores]) -> str:
    lines = ["", f"{'class':>5}{'images':>8}{'PSNR':>17}{'SSIM':>16}{'1-NN':>16}"]
    for label, chosen in classes.items():
        before, after = (scores[name].summary(chosen) for name in (DEGRADED, RESTORED))
        pairs = (
            f"{_decibels(before.psnr_mean)} → {_decibels(after.psnr_mean)}",
            f"{_share(before.ssim)} → {_share(after.ssim)}",
            f"{_share(before.readability)} → {_share(after.readability)}",
        )
        lines.append(f"{label:>5}{chosen.sum():8,}{pairs[0]:>17}{pairs[1]:>16}{pairs[2]:>16}")
    return "\n".join(lines)


def _decibels(value: float) -> str:
    return f"{value:.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
