"""Training: what the article's script builds, as one function."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import chainer
import numpy as np
from chainer import iterators, training
from chainer.datasets import TupleDataset
from chainer.training import extensions

from srmnist import checkpoint, files
from srmnist.data import Dataset, load_dataset, to_float
from srmnist.degradation import check_size, degrade
from srmnist.device import device_errors, select_device
from srmnist.engine.gpu import machine, plan
from srmnist.errors import UserError
from srmnist.interruption import Interruption
from srmnist.model import CNNAE
from srmnist.recipes import ARTICLE, TUNED, OneCycle, make_optimizer
from srmnist.reports import VALIDATION_LOSS, Lines, LogReport, LossPlot, StopIfDiverged
from srmnist.resident import Resident, ResidentUpdater
from srmnist.snapshots import Snapshots, set_aside


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
    plain : bool
        Whether to compute with the article's Chainer functions instead of an engine.
    recipe : str
        One of `srmnist.recipes.RECIPES`.
    """

    epoch: int = 10
    batchsize: int = 64
    seed: int = 0
    size: int = 10
    data: str | None = None
    gpu: int = -1
    plain: bool = False
    recipe: str = ARTICLE


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


def train(
    settings: Settings,
    out: Path,
    resume: Path | None = None,
    terminal: TextIO | None = None,
    snapshot_every: int | None = None,
) -> Result:
    """Train CNNAE and write ``model.npz``, ``log``, ``loss.png`` and snapshots to a directory.

    Parameters
    ----------
    settings : Settings
    out : Path
        Directory for the results; made if it does not exist.
    resume : Path, optional
        Snapshot to go on from, or a directory: then from the newest in it.
    terminal : text stream, optional
        Takes the table of losses, and a progress bar if it is a terminal; by default standard output.
    snapshot_every : int, optional
        Iterations from one snapshot to the next; at the end of each epoch there is one anyway.

    Raises
    ------
    UserError
        If a setting, a file or the device is not usable (nothing has then been written), if a result
        cannot be written, or if the training diverges.
    Interrupted
        If SIGTERM or SIGINT has stopped the run, after a snapshot.
    """
    device = select_device(settings.gpu)
    dataset = load_dataset(settings.data)
    _check_fit(settings, dataset)
    on_device = device_errors(settings.gpu, _device_memory(settings, dataset))
    # Every loss is looked at: NumPy's warnings of overflow on the way to a NaN would say it a second time.
    with files.occupied(out), Interruption() as interruption, np.errstate(all="ignore"), on_device:
        model = initial_model(settings.seed)
        model.to_device(device)
        train_pairs, test_pairs = (make_pairs(split.images, settings.size) for split in dataset)
        trainer = build_trainer(model, train_pairs, test_pairs, settings, out, terminal or sys.stdout)
        trainer.extend(interruption)
        snapshots = Snapshots(identity(settings, dataset))
        trainer.extend(snapshots, trigger=_snapshot_due(snapshot_every, interruption))
        _start(trainer, snapshots, settings, resume)
        with chainer.using_config("plain", settings.plain):
            trainer.run(show_loop_exception_msg=False)

        model.to_device("@numpy")
        checkpoint.save(out / "model.npz", model)
    log = trainer.get_extension("LogReport").log
    degraded, originals = test_pairs._datasets
    images = trainer.updater.iteration * settings.batchsize
    return Result(
        mse=log[-1][VALIDATION_LOSS],
        degraded_mse=float(np.mean((degraded - originals) ** 2, dtype=np.float64)),
        images_per_second=images / trainer.elapsed_time,
        seconds=trainer.elapsed_time,
        files=[out / name for name in ("model.npz", "log", "loss.png")],
    )


def _check_fit(settings: Settings, dataset: Dataset) -> None:
    count = len(dataset.train.images)
    if settings.batchsize > count:
        raise UserError(f"--batchsize {settings.batchsize}: there are {count:,} training images")
    check_size(settings.size, dataset.train.images)


def _device_memory(settings: Settings, dataset: Dataset) -> int:
    """Bytes that a run takes on a GPU: both data sets as pairs of float32 images, and a step's buffers."""
    pixels = 2 * sum(split.images.size for split in dataset)
    return 4 * pixels + plan.size_in_bytes(plan.Shape(settings.batchsize, *dataset.train.images.shape[1:]))


def identity(settings: Settings, dataset: Dataset) -> dict[str, int | str]:
    """The flags that decide what every step computes, and their values; of the data, a digest."""
    digest = hashlib.sha256()
    for split in dataset:
        digest.update(f"{split.images.shape}".encode())
        digest.update(np.ascontiguousarray(split.images))
    return {
        "seed": settings.seed,
        "batchsize": settings.batchsize,
        "size": settings.size,
        # What "tuned" computes in a step depends on how many there will be; "article" may go on for longer.
        "recipe": settings.recipe
        if settings.recipe == ARTICLE
        else f"{settings.recipe} {settings.epoch} epochs",
        "data": digest.hexdigest(),
    }


def _snapshot_due(every: int | None, interruption: Interruption) -> Callable[[training.Trainer], bool]:
    def due(trainer: training.Trainer) -> bool:
        in_mid_epoch = every is not None and trainer.updater.iteration % every == 0
        return trainer.updater.is_new_epoch or in_mid_epoch or interruption.trigger(trainer)

    return due


def _start(trainer: training.Trainer, snapshots: Snapshots, settings: Settings, resume: Path | None) -> None:
    """Bring the trainer to its first step, and the directory to where a later ``--resume`` finds this run."""
    out = Path(trainer.out)
    if resume is not None:
        resume = snapshots.resume(resume, trainer)
        if trainer.updater.epoch_detail > settings.epoch:
            raise UserError(
                f"--resume: {resume} has {trainer.updater.epoch_detail:.4g} epochs already; "
                "ask for more with --epoch"
            )
    aside = set_aside(out, resume)
    if aside and resume is None:
        print(
            f"{out}: a run begins anew; until its first snapshot, the earlier run's is {aside[-1]}",
            file=sys.stderr,
        )
    files.remove_temporaries(out)


def initial_model(seed: int) -> CNNAE:
    """CNNAE with the initial weights of a seed; NumPy's global generator is left as it was."""
    state = np.random.get_state()
    np.random.seed(seed)
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
    """The article's trainer: batches of 64, an evaluation each epoch, and the recipe's optimiser."""
    optimizer = make_optimizer(settings.recipe, model)
    resident = isinstance(model.device, chainer.backend.GpuDevice)
    build = _resident_updater if resident else _standard_updater
    updater, evaluator = build(optimizer, train, test, settings)

    trainer = training.Trainer(updater, (settings.epoch, "epoch"), out=str(out))
    if settings.recipe == TUNED:
        trainer.extend(OneCycle(-(-settings.epoch * len(train) // settings.batchsize)))
    trainer.extend(evaluator)
    trainer.extend(StopIfDiverged())
    trainer.extend(LogReport())
    columns = ["epoch", "main/loss", "validation/main/loss", "elapsed_time"]
    trainer.extend(extensions.PrintReport(columns, out=Lines(terminal)))
    trainer.extend(LossPlot())
    if terminal.isatty():
        # A trigger without a state: a run may be resumed where there is no terminal.
        trainer.extend(extensions.ProgressBar(out=terminal), trigger=lambda trainer: True)
    return trainer


def _standard_updater(
    optimizer: chainer.Optimizer, train: TupleDataset, test: TupleDataset, settings: Settings
) -> tuple[training.updaters.StandardUpdater, extensions.Evaluator]:
    train_iter, test_iter = _iterators(train, test, settings)
    model = optimizer.target
    updater = training.updaters.StandardUpdater(train_iter, optimizer, device=model.device)
    return updater, extensions.Evaluator(test_iter, model, device=model.device)


def _resident_updater(
    optimizer: chainer.Optimizer, train: TupleDataset, test: TupleDataset, settings: Settings
) -> tuple[training.updaters.StandardUpdater, extensions.Evaluator]:
    device = machine.current()
    train_data, test_data = Resident(device, train), Resident(device, test)
    train_iter, test_iter = _iterators(train_data.indices, test_data.indices, settings)
    updater = ResidentUpdater(train_iter, optimizer, train_data)
    return updater, extensions.Evaluator(test_iter, optimizer.target, converter=test_data)


def _iterators(
    train: Sequence, test: Sequence, settings: Settings
) -> tuple[iterators.SerialIterator, iterators.SerialIterator]:
    shuffle = EpochShuffle(settings.seed)
    return (
        iterators.SerialIterator(train, settings.batchsize, order_sampler=shuffle),
        iterators.SerialIterator(test, settings.batchsize, repeat=False, shuffle=False),
    )
