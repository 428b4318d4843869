"""Training: a run from its settings to its files."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import chainer
import numpy as np
from chainer import training

from srmnist import weights
from srmnist.data import Dataset, load_dataset
from srmnist.system import files
from srmnist.system.device import device_errors, device_number
from srmnist.system.errors import UserError
from srmnist.system.mpiexec import launched_size, let_first_speak
from srmnist.training.interruption import Interruption
from srmnist.training.process import Alone
from srmnist.training.reports import VALIDATION_LOSS
from srmnist.training.settings import Settings, check_fit, identity
from srmnist.training.snapshots import Snapshots, set_aside
from srmnist.training.trainer import build_trainer, initial_model, make_pairs


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
            check_fit(settings, dataset, job.size)
            if job.leads:
                held.enter_context(files.occupied(out))
        identity_ = identity(settings, dataset, job.size)
        job.require_same(identity_)
        interruption = held.enter_context(job.interruption())
        # Every loss is looked at: NumPy's warnings of overflow on the way to a NaN would say it twice.
        held.enter_context(np.errstate(all="ignore"))
        held.enter_context(_gpu_errors(device, settings, dataset))
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
        weights.save(out / "model.npz", model)
    log = trainer.get_extension("LogReport").log
    return Result(
        mse=log[-1][VALIDATION_LOSS],
        degraded_mse=float(np.mean((test_pairs.degraded - test_pairs.originals) ** 2, dtype=np.float64)),
        images_per_second=trainer.updater.epoch_detail * len(train_pairs) / trainer.elapsed_time,
        seconds=trainer.elapsed_time,
        files=[out / name for name in ("model.npz", "log", "loss.png")],
    )


def _job(settings: Settings) -> AbstractContextManager[Alone]:
    """This process alone, or together with the others that ``mpiexec`` has started."""
    if settings.communicator is not None:
        from srmnist.training import distributed

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


def _gpu_errors(
    device: chainer.backend.Device, settings: Settings, dataset: Dataset
) -> AbstractContextManager[None]:
    """What fails on a GPU becomes a UserError; if its memory is too small, one that names what is needed."""
    number = device_number(device)
    if number < 0:
        return nullcontext()
    from srmnist.engine.gpu.updater import resident_bytes  # not before a GPU is used

    needed = resident_bytes(settings.batchsize, dataset.train.images, dataset.test.images)
    return device_errors(number, needed)


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
