"""The trainer: iterators, updater, evaluator and extensions, combined as in the article."""

import math
from pathlib import Path
from typing import TextIO

import chainer
import numpy as np
from chainer import training
from chainer.iterators import SerialIterator
from chainer.training import extensions

from srmnist.model import CNNAE
from srmnist.system.terminal import can_redraw
from srmnist.training.divergence import StopIfDiverged
from srmnist.training.pairs import Pairs
from srmnist.training.process import Process
from srmnist.training.progress import PrintReport, ProgressBar
from srmnist.training.recipes import ARTICLE, TUNED, Schedule, make_optimizer, prepare
from srmnist.training.reports import LogReport, LossCurve
from srmnist.training.settings import Settings
from srmnist.training.updater import Updater

Parts = tuple[training.updaters.StandardUpdater, extensions.Evaluator]


class EpochShuffle:
    """Order sampler for `SerialIterator`: each epoch's order follows from the seed and the epoch alone."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.epoch = 0

    def __call__(self, order: np.ndarray, position: int) -> np.ndarray:
        shuffled = np.random.default_rng((self.seed, self.epoch)).permutation(len(order))
        self.epoch += 1
        return shuffled


def initial_model(seed: int, recipe: str = ARTICLE) -> CNNAE:
    """CNNAE with a recipe's initial weights of a seed; NumPy's global random generator keeps its state."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        model = CNNAE()
    finally:
        np.random.set_state(state)
    prepare(recipe, model)
    return model


def build_trainer(
    model: CNNAE,
    train: Pairs,
    test: Pairs,
    settings: Settings,
    out: Path | None,
    terminal: TextIO,
    process: Process = Process(),  # noqa: B008 – it has no state
) -> training.Trainer:
    """The article's trainer: an evaluation each epoch, and the recipe's optimiser.

    Parameters
    ----------
    model : CNNAE
        On its device.
    train, test : Pairs
    settings : Settings
    out : Path or None
        The directory of the results; None writes no file.
    terminal : text stream
        The table of losses is printed there.
    process : Process, optional
        This process of the run; by default it is the only one.
    """
    optimizer = process.optimizer(make_optimizer(settings.recipe, model))
    resident = isinstance(model.device, chainer.backend.GpuDevice) and chainer.get_dtype() == np.float32
    build = _resident_updater if resident else _standard_updater
    updater, evaluator = build(optimizer, train, test, settings, process)

    # Chainer makes this directory if it does not exist; the current directory exists.
    trainer = training.Trainer(updater, (settings.epoch, "epoch"), out=str(out or Path()))
    _complete(trainer)
    if settings.recipe == TUNED:
        batches = settings.epoch * len(train) / updater.get_iterator("main").batch_size
        trainer.extend(Schedule(math.ceil(batches)))
    trainer.extend(evaluator)
    if process.leads:
        _add_reports(trainer, out, terminal)
    return trainer


def _add_reports(trainer: training.Trainer, out: Path | None, terminal: TextIO) -> None:
    trainer.extend(StopIfDiverged(out))
    trainer.extend(LogReport(out))
    trainer.extend(PrintReport(terminal))
    if out is not None:
        trainer.extend(LossCurve(out))
    if can_redraw(terminal):
        trainer.extend(ProgressBar(terminal))


def _complete(trainer: training.Trainer) -> None:
    """Make now what Chainer makes at the first step: Adam's moments and the time of the start.

    Then a new trainer can be saved, and a snapshot can be loaded into it.
    """
    for param in trainer.updater.get_optimizer("main").target.params():
        param.update_rule._init_states(param)
    trainer._start_at = 0.0


def _standard_updater(
    optimizer: chainer.Optimizer, train: Pairs, test: Pairs, settings: Settings, process: Process
) -> Parts:
    train_iter, test_iter = _iterators(train, test, settings, process)
    model = optimizer.target
    updater = Updater(train_iter, optimizer, train.converter, model.device)
    return updater, process.evaluator(test_iter, model, test.converter)


def _resident_updater(
    optimizer: chainer.Optimizer, train: Pairs, test: Pairs, settings: Settings, process: Process
) -> Parts:
    from srmnist.engine.gpu.updater import resident_evaluation, resident_updater  # not before a GPU is used

    train_iter, test_iter = _iterators(train, test, settings, process)
    updater = resident_updater(train_iter, optimizer, train, settings.plain)
    return updater, process.evaluator(test_iter, optimizer.target, *resident_evaluation(updater, test))


def _iterators(
    train: Pairs, test: Pairs, settings: Settings, process: Process
) -> tuple[SerialIterator, SerialIterator]:
    """The iterators over the indices of the training and the test images."""
    indices = range(len(train)), range(len(test))
    return process.iterators(*indices, settings.batchsize, EpochShuffle(settings.seed))
