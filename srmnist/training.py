"""Training: what the article's script builds, as one function."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import chainer
import numpy as np
from chainer import iterators, optimizers, training
from chainer.datasets import TupleDataset
from chainer.training import extensions

from srmnist import checkpoint
from srmnist.data import load_dataset, to_float
from srmnist.degradation import degrade
from srmnist.device import select_device
from srmnist.errors import UserError
from srmnist.model import CNNAE


@dataclass(frozen=True)
class Settings:
    """What a run is made of; the defaults are the article's.

    Attributes
    ----------
    epoch : int
        Passes over the training images.
    batchsize : int
        Images a step.
    seed : int
        Fixes the initial weights and every epoch's shuffle.
    size : int
        Height and width that the images are shrunk to.
    data : str or None
        Directory of IDX files; None is the embedded MNIST.
    gpu : int
        CUDA device number; negative is the CPU.
    """

    epoch: int = 10
    batchsize: int = 64
    seed: int = 0
    size: int = 10
    data: str | None = None
    gpu: int = -1


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes
    ----------
    mse, degraded_mse : float
        Mean squared error over the test images, restored and as degraded.
    images_per_second : float
        Training images over the whole run's time, evaluations included.
    seconds : float
        The whole run's time, from the first step on.
    files : list of Path
        What was written.
    """

    mse: float
    degraded_mse: float
    images_per_second: float
    seconds: float
    files: list[Path]


class EpochShuffle:
    """Order sampler for `SerialIterator`: each epoch's order follows from the seed and the epoch alone."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.epoch = 0

    def __call__(self, order: np.ndarray, position: int) -> np.ndarray:
        shuffled = np.random.default_rng((self.seed, self.epoch)).permutation(len(order))
        self.epoch += 1
        return shuffled


def train(settings: Settings, out: Path, resume: Path | None = None, terminal: TextIO = sys.stdout) -> Result:
    """Train CNNAE and write ``model.npz``, ``log``, ``loss.png`` and snapshots to a directory.

    Parameters
    ----------
    settings : Settings
    out : Path
        Directory for the results; made if it does not exist.
    resume : Path, optional
        Snapshot to go on from.
    terminal : text stream
        Takes the table of losses, and a progress bar if it is a terminal.

    Raises
    ------
    UserError
        If a setting, a file or the device is not usable; nothing has then been written.
    """
    device = select_device(settings.gpu)
    dataset = load_dataset(settings.data)
    model = initial_model(settings.seed)
    model.to_device(device)
    prepare_directory(out)
    train_pairs, test_pairs = (make_pairs(split.images, settings.size) for split in dataset)
    trainer = build_trainer(model, train_pairs, test_pairs, settings, out, terminal)
    if resume is not None:
        checkpoint.load_snapshot(resume, trainer)
        iterator = trainer.updater.get_iterator("main")
        iterator.order_sampler.epoch = iterator.epoch + 1
        if iterator.epoch >= settings.epoch:
            raise UserError(f"--resume: {resume} has {iterator.epoch} epochs already; ask for more with --epoch")
    trainer.run()

    model.to_device("@numpy")
    checkpoint.save(out / "model.npz", model)
    log = trainer.get_extension("LogReport").log
    degraded, originals = test_pairs._datasets
    images = trainer.updater.iteration * settings.batchsize
    return Result(
        mse=log[-1]["validation/main/loss"],
        degraded_mse=float(np.mean((degraded - originals) ** 2, dtype=np.float64)),
        images_per_second=images / trainer.elapsed_time,
        seconds=trainer.elapsed_time,
        files=[out / name for name in ("model.npz", "log", "loss.png")],
    )


def initial_model(seed: int) -> CNNAE:
    """CNNAE with the initial weights of a seed; NumPy's global generator is left as it was."""
    state = np.random.get_state()
    np.random.seed(seed)  # noqa: NPY002 – Chainer's initialisers draw from the global generator
    try:
        return CNNAE()
    finally:
        np.random.set_state(state)


def make_pairs(images: np.ndarray, size: int) -> TupleDataset:
    """Pairs (degraded, original) of float32 images, from uint8 images of shape (N, H, W)."""
    originals = to_float(images)
    return TupleDataset(degrade(originals, size), originals)


def build_trainer(
    model: CNNAE,
    train: TupleDataset,
    test: TupleDataset,
    settings: Settings,
    out: Path,
    terminal: TextIO,
) -> training.Trainer:
    """The article's trainer: Adam with Chainer's defaults, batches of 64, an evaluation each epoch."""
    train_iter = iterators.SerialIterator(
        train, settings.batchsize, order_sampler=EpochShuffle(settings.seed)
    )
    test_iter = iterators.SerialIterator(test, settings.batchsize, repeat=False, shuffle=False)

    optimizer = optimizers.Adam()
    optimizer.setup(model)
    updater = training.updaters.StandardUpdater(train_iter, optimizer, device=model.device)

    trainer = training.Trainer(updater, (settings.epoch, "epoch"), out=str(out))
    trainer.extend(extensions.Evaluator(test_iter, model, device=model.device))
    trainer.extend(extensions.LogReport())
    columns = ["epoch", "main/loss", "validation/main/loss", "elapsed_time"]
    trainer.extend(extensions.PrintReport(columns, out=_Lines(terminal)))
    trainer.extend(
        extensions.PlotReport(["main/loss", "validation/main/loss"], "epoch", filename="loss.png")
    )
    trainer.extend(checkpoint.snapshot)
    if terminal.isatty():
        trainer.extend(extensions.ProgressBar(out=terminal))
    return trainer


def prepare_directory(out: Path) -> None:
    """Make the output directory and make sure that it can be written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        checkpoint.write_whole(out / "log", lambda file: file.write(b"[]"))
    except OSError as error:
        raise UserError(f"--out: {out}: cannot write there: {error.strerror}") from error


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error, for intensities in [0, 1]."""
    return math.inf if mse == 0 else -10 * math.log10(mse)


class _Lines:
    """A stream for PrintReport, which begins each line with an escape sequence for the progress bar's sake."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        self._stream.write(text if self._stream.isatty() else text.replace("\033[J", ""))

    def flush(self) -> None:
        self._stream.flush()
