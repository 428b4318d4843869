"""Training: what the article's script builds, as one function."""

import hashlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import chainer
import numpy as np
from chainer import training
from chainer.datasets import TupleDataset
from chainer.training import extensions

from srmnist import checkpoint, files
from srmnist.data import Dataset, load_dataset, to_float
from srmnist.degradation import check_size, degrade
from srmnist.device import device_errors, device_number
from srmnist.engine.gpu import machine, plan
from srmnist.errors import UserError
from srmnist.interruption import Interruption
from srmnist.job import Alone
from srmnist.launch import launched_size, let_first_speak
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
    communicator : {'naive', 'flat', 'pure_nccl'} or None
        ChainerMN's communicator, for a run of several processes; `batchsize` is then each one's, and `gpu`
        that of the first on a machine. None is a run of one process.
    sync_bn : bool
        Whether batch normalisation takes its statistics from the batches of all processes.
    """

    epoch: int = 10
    batchsize: int = 64
    seed: int = 0
    size: int = 10
    data: str | None = None
    gpu: int = -1
    plain: bool = False
    recipe: str = ARTICLE
    communicator: str | None = None
    sync_bn: bool = False


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
) -> Result | None:
    """Train CNNAE and write ``model.npz``, ``log``, ``loss.png`` and snapshots to a directory.

    With a communicator all its processes call this, and only that of rank 0 writes and has a result.

    Parameters
    ----------
    settings : Settings
    out : Path
        Directory for the results; made if it does not exist.
    resume : Path, optional
        Snapshot to go on from, or a directory: then from the newest in it.
    terminal : text stream, optional
        Takes the table of losses, and a progress bar if it is a terminal; by default standard output (with
        a communicator, without the bar).
    snapshot_every : int, optional
        Iterations from one snapshot to the next; at the end of each epoch there is one anyway.

    Raises
    ------
    UserError
        If a setting, a file or the device is not usable (nothing has then been written), if a result
        cannot be written, or if the training diverges.
    Interrupted
        If SIGTERM or SIGINT has stopped the run, after a snapshot.
    SystemExit
        In the processes other than rank 0's, where that has one of these.
    """
    with _job(settings) as job, ExitStack() as held:
        with job.agreed():
            device = job.device(settings.gpu)
            dataset = load_dataset(settings.data)
            _check_fit(settings, dataset, job.size)
            if job.leads:
                held.enter_context(files.occupied(out))
        identity_ = identity(settings, dataset, job.size)
        job.require_same(identity_)
        interruption = held.enter_context(job.interruption())
        # Every loss is looked at: NumPy's warnings of overflow on the way to a NaN would say it twice.
        held.enter_context(np.errstate(all="ignore"))
        held.enter_context(device_errors(device_number(device), _device_memory(settings, dataset)))
        model = job.model(initial_model(settings.seed))
        model.to_device(device)
        train_pairs, test_pairs = (make_pairs(split.images, settings.size) for split in dataset)
        trainer = build_trainer(
            model, train_pairs, test_pairs, settings, out, terminal or job.terminal(), job
        )
        trainer.extend(interruption)
        snapshots = Snapshots(identity_)
        with job.agreed():
            if job.leads:
                trainer.extend(snapshots, trigger=_snapshot_due(snapshot_every, interruption))
                _start(trainer, snapshots, settings, resume)
        job.begin(trainer, interruption)
        with chainer.using_config("plain", settings.plain):
            trainer.run(show_loop_exception_msg=False)
        if not job.leads:
            return None
        model.to_device("@numpy")
        checkpoint.save(out / "model.npz", model)
    log = trainer.get_extension("LogReport").log
    degraded, originals = test_pairs._datasets
    return Result(
        mse=log[-1][VALIDATION_LOSS],
        degraded_mse=float(np.mean((degraded - originals) ** 2, dtype=np.float64)),
        images_per_second=trainer.updater.epoch_detail * len(train_pairs) / trainer.elapsed_time,
        seconds=trainer.elapsed_time,
        files=[out / name for name in ("model.npz", "log", "loss.png")],
    )


def _job(settings: Settings) -> AbstractContextManager[Alone]:
    """This process alone, or together with the others that ``mpiexec`` has started."""
    if settings.communicator is not None:
        from srmnist import distributed

        return distributed.joined(settings.communicator, settings.gpu, settings.sync_bn)
    if launched_size() > 1:
        let_first_speak()
        raise UserError(
            f"mpiexec started {launched_size()} processes, each of which would train for itself; "
            "for one run of all of them, add --communicator naive"
        )
    if settings.sync_bn:
        raise UserError("--sync-bn: is for a run of several processes; add --communicator")
    return nullcontext(Alone())


def _check_fit(settings: Settings, dataset: Dataset, processes: int) -> None:
    count = len(dataset.train.images)
    if settings.batchsize * processes > count:
        each = f" for each of {processes} processes" if processes > 1 else ""
        raise UserError(f"--batchsize {settings.batchsize}{each}: there are {count:,} training images")
    check_size(settings.size, dataset.train.images)


def _device_memory(settings: Settings, dataset: Dataset) -> int:
    """Bytes that a run takes on a GPU: both data sets as pairs of float32 images, and a step's buffers."""
    pixels = 2 * sum(split.images.size for split in dataset)
    return 4 * pixels + plan.size_in_bytes(plan.Shape(settings.batchsize, *dataset.train.images.shape[1:]))


def identity(settings: Settings, dataset: Dataset, processes: int = 1) -> dict[str, int | str]:
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
        else f"{settings.recipe}, {settings.epoch} epochs, {settings.batchsize * processes} images a step",
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
    job: Alone = Alone(),  # noqa: B008 – it has no state
) -> training.Trainer:
    """The article's trainer: batches of 64, an evaluation each epoch, and the recipe's optimiser."""
    optimizer = job.optimizer(make_optimizer(settings.recipe, model))
    resident = isinstance(model.device, chainer.backend.GpuDevice)
    build = _resident_updater if resident else _standard_updater
    updater, evaluator = build(optimizer, train, test, settings, job)

    trainer = training.Trainer(updater, (settings.epoch, "epoch"), out=str(out))
    if settings.recipe == TUNED:
        trainer.extend(OneCycle(-(-settings.epoch * len(train) // updater.get_iterator("main").batch_size)))
    trainer.extend(evaluator)
    if not job.leads:
        return trainer
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
    optimizer: chainer.Optimizer, train: TupleDataset, test: TupleDataset, settings: Settings, job: Alone
) -> tuple[training.updaters.StandardUpdater, extensions.Evaluator]:
    train_iter, test_iter = job.iterators(train, test, settings.batchsize, EpochShuffle(settings.seed))
    model = optimizer.target
    updater = training.updaters.StandardUpdater(train_iter, optimizer, device=model.device)
    return updater, job.evaluator(test_iter, model)


def _resident_updater(
    optimizer: chainer.Optimizer, train: TupleDataset, test: TupleDataset, settings: Settings, job: Alone
) -> tuple[training.updaters.StandardUpdater, extensions.Evaluator]:
    device = machine.current()
    train_data, test_data = Resident(device, train), Resident(device, test)
    train_iter, test_iter = job.iterators(
        train_data.indices, test_data.indices, settings.batchsize, EpochShuffle(settings.seed)
    )
    updater = ResidentUpdater(train_iter, optimizer, train_data)
    return updater, job.evaluator(test_iter, optimizer.target, test_data)
