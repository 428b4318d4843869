"""Evaluation: a trained model restores a test set and is compared with interpolation."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from srmnist.data import Dataset, load_dataset, to_float
from srmnist.degradation import check_size, enlarge, shrink
from srmnist.evaluation.interpolation import INTERPOLATIONS, interpolate
from srmnist.evaluation.metrics import psnr, worst
from srmnist.evaluation.metrics_file import metrics_file
from srmnist.evaluation.scores import DEGRADED, ORIGINAL, RESTORED, Judge
from srmnist.evaluation.table import HEADER, Output, class_table, row
from srmnist.figures import draw_psnr, png, show_grid
from srmnist.restoration import load_model, restore
from srmnist.system.cli import complain
from srmnist.system.files import write_all

_HARDEST = 12


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
        The tables are printed there, each line as soon as it is measured; by default standard output.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    UserError
        If a file or the device is not usable; nothing has then been written.
    OSError, UnicodeError
        If the tables cannot be printed; the files have then been written.
    """
    output = Output(terminal or sys.stdout)
    model = load_model(model_file, gpu)
    dataset = load_dataset(data)
    _say_what_is_left_out(dataset)
    dataset.test.require_intact()
    originals = to_float(dataset.test.images)
    check_size(size, originals)
    judge = Judge(dataset, originals, gpu)
    output.line(HEADER)
    shrunk = shrink(originals, size)
    degraded = enlarge(shrunk, originals.shape[2:])
    restored = restore(degraded, model)

    scores = {}
    for name, images in _rows(shrunk, degraded, restored, originals):
        scores[name] = judge.scores(images)
        output.line(row(name, scores[name].summary()))
    classes = _classes(dataset.test.labels)
    if len(classes) > 1:
        output.line(class_table(classes, scores))

    errors = {name: scores[name].squared_error for name in (DEGRADED, RESTORED)}
    hardest = worst(errors[RESTORED], _HARDEST)
    files = write_all(
        out,
        {
            "metrics.json": metrics_file(dataset.name, size, judge.neighbours, scores, classes),
            "metrics.png": png(draw_psnr({name: psnr(values) for name, values in errors.items()})),
            "hardest.png": png(show_grid(degraded[hardest], restored[hardest], originals[hardest])),
        },
        inputs=[model_file],
    )
    output.check()
    return files


def _say_what_is_left_out(dataset: Dataset) -> None:
    """Say on stderr why there are no classes or no nearest neighbours, if labels are missing."""
    reasons = [split.no_labels for split in dataset if split.labels is None]
    if reasons:
        missing = "no 1-NN" if dataset.test.labels is not None else "no 1-NN, no classes"
        complain(f"{'; '.join(reasons)} ({missing})")


def _rows(
    shrunk: np.ndarray, degraded: np.ndarray, restored: np.ndarray, originals: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    yield DEGRADED, degraded
    for name, interpolation in INTERPOLATIONS.items():
        yield name, interpolate(shrunk, originals.shape[2:], interpolation)
    yield RESTORED, restored
    yield ORIGINAL, originals


def _classes(labels: np.ndarray | None) -> dict[str, np.ndarray]:
    """For each class, which images belong to it."""
    return {} if labels is None else {str(label): labels == label for label in np.unique(labels)}
