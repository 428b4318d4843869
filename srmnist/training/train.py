"""Training: a run from its settings to its files."""

import io
import math
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import chainer
import numpy as np
from chainer import training

from srmnist import weights
from srmnist.data import Dataset, load_dataset, pick
from srmnist.system.device import device_errors, device_number
from srmnist.system.errors import UserError
from srmnist.system.files import remove_temporaries
from srmnist.system.locks import occupied
from srmnist.system.mpiexec import launched_size, let_first_speak
from srmnist.system.terminal import in_notebook
from srmnist.training import learning
from srmnist.training.divergence import require_finite
from srmnist.training.interruption import Interrupted, Interruption
from srmnist.training.pairs import Pairs
from srmnist.training.process import Process
from srmnist.training.reports import VALIDATION_LOSS, Follow, Progress
from srmnist.training.settings import Settings, check_fit, identity
from srmnist.training.snapshots import Snapshots, set_aside
from srmnist.training.trainer import build_trainer, initial_model


@dataclass(frozen=True)
class Result:
    """The results of a run.

    Attributes
    ----------
    mse, degraded_mse : float
        Mean squared error of the restored and of the degraded test images, intensities in [0, 1]; `mse` is
        NaN if the run was stopped in its first epoch.
    images_per_second : float
        Training images divided by `seconds`.
    seconds : float
        Time of the whole run with its evaluations, from its first step.
    files : list of Path
        The files written.
    model : CNNAE
        The trained model, in main memory.
    log : list of dict
        For each epoch its number ``epoch``, the losses ``main/loss`` and ``validation/main/loss``, the number
        of steps so far ``iteration``, and the seconds so far ``elapsed_time``.
    """

    mse: float
    degraded_mse: float
    images_per_second: float
    seconds: float
    files: list[Path]
    model: chainer.Chain = field(repr=False)
    log: list[dict[str, float]] = field(repr=False)


def train(
    settings: Settings = Settings(),  # noqa: B008 – it is immutable
    out: str | Path | None = None,
    resume: str | Path | None = None,
    terminal: TextIO | None = None,
    snapshot_every: int | None = None,
    follow: Callable[[Progress], object] | None = None,
) -> Result | None:
    """Train CNNAE; write its weights, losses, pictures and snapshots to a directory, if one is given.

    The files are ``model.npz``, ``log``, ``loss.png``, ``learning.gif``, ``learning.npz`` and the snapshots.

    With a communicator, all its processes call this function; only rank 0 writes files and returns a result.

    Parameters
    ----------
    settings : Settings, optional
        By default the article's.
    out : path, optional
        Directory for the results; it is made if it does not exist. By default nothing is written.
    resume : path, optional
        Snapshot to go on from, or a directory: then its newest snapshot.
    terminal : text stream, optional
        The table of losses is printed there, and a progress bar if it is a terminal. By default it is
        standard output (with a communicator, without the bar). In a notebook it is a figure below the cell
        instead: ten test images as the network restores them, and the losses, redrawn during the run.
    snapshot_every : int, optional
        Iterations from one snapshot to the next; each epoch ends with a snapshot in any case.
    follow : callable, optional
        Is called with a `Progress` before the run's first step (also if the run goes on from a snapshot) and
        after each step. Computations with the model there do not change the training.

    Returns
    -------
    Result or None
        None in all processes but rank 0.

    Raises
    ------
    UserError
        If a setting, a file or the device is not usable (nothing has then been written), if a result
        cannot be written, or if the training diverges.
    Interrupted
        If SIGTERM, SIGHUP or SIGINT (Ctrl-C; a notebook's stop button) has stopped the run, after a whole
        step and a snapshot. It is a KeyboardInterrupt; its ``result`` holds the model and the log so far.
    SystemExit
        In all processes but rank 0, when rank 0 raises one of these.

    Examples
    --------
    >>> result = srmnist.train(srmnist.Settings(epoch=3))
    >>> restored = srmnist.restore(srmnist.degrade(digits), result.model)
    """
    out, resume = (None if path is None else Path(path) for path in (out, resume))
    with _process(settings) as process, ExitStack() as held:
        with process.agreed():
            device = process.device(settings.gpu)
            dataset = load_dataset(settings.data)
            check_fit(settings, dataset, process.size)
            if process.leads and out is not None:
                held.enter_context(occupied(out))
        identity_ = identity(settings, dataset, process.size)
        process.require_same({"data": identity_["data"]})
        interruption = held.enter_context(Interruption(process.signals, kept=out is not None))
        # Every loss is checked; NumPy's warnings of an overflow on the way to a NaN would say it twice.
        held.enter_context(np.errstate(all="ignore"))
        held.enter_context(_gpu_errors(device, settings, dataset))
        model = process.model(initial_model(settings.seed, settings.recipe))
        model.to_device(device)
        pairs, test_pairs = (Pairs(split.images, settings.size, split.require_intact) for split in dataset)
        watched = terminal is None and process.leads and in_notebook()
        terminal = io.StringIO() if watched else terminal or process.terminal()
        trainer = build_trainer(model, pairs, test_pairs, settings, out, terminal, process)
        trainer.extend(interruption)
        with process.agreed():
            if process.leads:
                snapshots = Snapshots(identity_)
                recorder = learning.Recorder(test_pairs, len(pairs), identity_)
                if out is not None:
                    _keep(trainer, snapshots, recorder, _snapshot_due(snapshot_every, interruption))
                start = None if resume is None else _go_on(trainer, snapshots, resume, settings.epoch)
                if out is not None:
                    if start is not None:
                        recorder.resume(start, trainer.updater.epoch_detail)
                    _make_way(out, start, resume)
                if watched:
                    trainer.extend(Follow(_live_figure(test_pairs, len(pairs), settings)), name="live")
                if follow is not None:
                    trainer.extend(Follow(follow))
        process.begin(trainer, interruption)
        try:
            with chainer.using_config("plain", settings.plain):
                trainer.run(show_loop_exception_msg=False)
        except Interrupted as stop:
            if process.leads:
                stop.result = _result(trainer, model, test_pairs)
            raise
        return _finish(trainer, model, test_pairs, out) if process.leads else None


def _finish(trainer: training.Trainer, model: chainer.Chain, test_pairs: Pairs, out: Path | None) -> Result:
    """Write the weights and the animation, and collect the results of a run that has ended."""
    result = _result(trainer, model, test_pairs)
    if out is not None:
        weights.save(out / "model.npz", model)
        result.files.extend(out / name for name in ("model.npz", "log", "loss.png"))
        recorder = trainer.get_extension(learning.Recorder.name)
        result.files.extend(recorder.finish(out, trainer.updater.epoch_detail, model))
    else:  # with `out`, the last snapshot was checked
        require_finite(chainer.serializers.npz.serialize(model), trainer.updater.iteration, out)
    return result


def _live_figure(test: Pairs, images: int, settings: Settings) -> Callable[[Progress], object]:
    from srmnist.training.live_figure import LiveFigure  # matplotlib takes a second to import

    return LiveFigure(*test.batch(pick(len(test))), images, settings.epoch)


def _result(trainer: training.Trainer, model: chainer.Chain, test_pairs: Pairs) -> Result:
    model.to_device("@numpy")
    log = trainer.get_extension("LogReport").log
    seconds = trainer.elapsed_time
    images = trainer.updater.epoch_detail * len(trainer.updater.get_iterator("main").dataset)
    return Result(
        mse=log[-1][VALIDATION_LOSS] if log else math.nan,
        degraded_mse=_degraded_mse(test_pairs),
        images_per_second=images / seconds,
        seconds=seconds,
        files=[],
        model=model,
        log=log,
    )


def _degraded_mse(pairs: Pairs) -> float:
    squared = (np.square(degraded - originals) for degraded, originals in pairs.batches())
    return float(sum(np.sum(errors, dtype=np.float64) for errors in squared) / pairs.images.size)


def _process(settings: Settings) -> AbstractContextManager[Process]:
    """This process alone, or together with the others that ``mpiexec`` has started."""
    if settings.communicator is not None:
        from srmnist.training import distributed

        return distributed.joined(settings)
    if launched_size() > 1:
        let_first_speak()
        raise UserError(
            f"mpiexec started {launched_size()} processes, each of which would train for itself; "
            "for one run of all of them, add --communicator naive"
        )
    if settings.sync_bn:
        raise UserError("--sync-bn: is for a run of several processes; add --communicator")
    return nullcontext(Process())


def _gpu_errors(
    device: chainer.backend.Device, settings: Settings, dataset: Dataset
) -> AbstractContextManager[None]:
    """Context that turns a GPU's error into a UserError, which says how much memory the run needs."""
    number = device_number(device)
    if number < 0:
        return nullcontext()
    from srmnist.engine.gpu.updater import resident_bytes  # not before a GPU is used

    needed = resident_bytes(settings.batchsize, dataset.train.images, dataset.test.images)
    return device_errors(number, needed)


def _keep(
    trainer: training.Trainer,
    snapshots: Snapshots,
    recorder: learning.Recorder,
    due: Callable[[training.Trainer], bool],
) -> None:
    """Let the trainer write snapshots, and before each of them what the recorder has kept."""
    out, priority = Path(trainer.out), snapshots.priority
    trainer.extend(recorder)
    trainer.extend(lambda _: recorder.write(out), name="write_learning", trigger=due, priority=priority + 1)
    trainer.extend(snapshots, trigger=due)
    drop = lambda _: learning.drop_earlier(out)  # noqa: E731
    trainer.extend(drop, name="drop_earlier_learning", trigger=due, priority=priority - 1)


def _go_on(trainer: training.Trainer, snapshots: Snapshots, resume: Path, epochs: int) -> Path:
    """Load a snapshot into the trainer and return the snapshot's path."""
    start = snapshots.resume(resume, trainer)
    made = trainer.updater.epoch_detail
    if made > epochs:
        raise UserError(f"--resume: {start} has {made:.4g} epochs already; ask for more with --epoch")
    return start


def _make_way(out: Path, start: Path | None, resume: Path | None) -> None:
    """Prepare the directory of the run, so that a later ``--resume`` finds the snapshots of this run only."""
    aside = set_aside(out, start)
    learning.set_aside(out, start)
    # If `resume` is this directory, only damaged snapshots are set aside; each was named on stderr before.
    if aside and not (resume is not None and resume.is_dir() and resume.samefile(out)):
        begins = "begins anew" if start is None else f"goes on from {start}"
        kept = f"until its first snapshot, the earlier run's is {aside[-1]}"
        print(f"{out}: a run {begins}; {kept}", file=sys.stderr)
    remove_temporaries(out)


def _snapshot_due(every: int | None, interruption: Interruption) -> Callable[[training.Trainer], bool]:
    def due(trainer: training.Trainer) -> bool:
        within_epoch = every is not None and trainer.updater.iteration % every == 0
        return trainer.updater.is_new_epoch or within_epoch or interruption.trigger(trainer)

    return due
