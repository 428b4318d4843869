"""How long each recipe takes to reach which error, from the logs of many runs, for `draw_quality`."""

import json
import statistics
from collections import defaultdict
from pathlib import Path

from srmnist.system.files import FileError, read_regular
from srmnist.training.recipes import ARTICLE, RECIPES
from srmnist.training.reports import VALIDATION_LOSS

_LARGEST = 1 << 20
_QUIET = "quiet"
_OURS, _PYTORCH = "srmnist engine", "torch.compile"

Curve = list[tuple[float, float, int]]


def load_quality(folder: Path) -> dict[str, Curve]:
    """The mean error of each recipe against the seconds of a run.

    The seconds are the epochs of a run, times the seconds of one epoch on a machine that did nothing else.

    Parameters
    ----------
    folder : Path
        It holds ``RECIPE-SEED*/log`` of runs, and ``quiet/RECIPE/log`` of the run that tells the seconds of
        an epoch. All are logs of ``scripts/train.py``.

    Returns
    -------
    dict of str to list of (float, float, int)
        For each recipe, (seconds, mean validation MSE, number of seeds) by increasing seconds. Every epoch of
        "article" is a point, because a shorter run ends the same at it; so several logs of one seed count
        once. Of the other recipes, only the last epoch of a log is a point.

    Raises
    ------
    FileError
        If a log is missing, or is not such a log.
    """
    return {recipe: _curve(folder, recipe) for recipe in RECIPES}


def _curve(folder: Path, recipe: str) -> Curve:
    errors: dict[int, dict[str, float]] = defaultdict(dict)  # of each epoch, for each seed
    for path in sorted(folder.glob(f"{recipe}-*/log")):
        log = _load_log(path)
        seed = path.parent.name.split("-")[1]
        for epoch, error, _ in log if recipe == ARTICLE else log[-1:]:
            errors[epoch][seed] = error
    if not errors:
        raise FileError(f"{folder}: it has no {recipe}-SEED*/log")
    epochs, _, elapsed = _load_log(folder / _QUIET / recipe / "log")[-1]
    return [
        (epoch * elapsed / epochs, statistics.mean(seeds.values()), len(seeds))
        for epoch, seeds in sorted(errors.items())
    ]


def _load_log(path: Path) -> list[tuple[int, float, float]]:
    """The epoch, the validation loss and the seconds since the start, of each entry of a log."""
    try:
        log = [
            (int(entry["epoch"]), float(entry[VALIDATION_LOSS]), float(entry["elapsed_time"]))
            for entry in json.loads(read_regular(path, _LARGEST))
        ]
        if not log or log[-1][0] < 1:
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(f"{path}: not a log that scripts/train.py has written") from error
    return log


def load_pytorch_ratio(benchmark: Path) -> float:
    """How many times as long as the engine PyTorch takes for a step of 64 images, the article's.

    Parameters
    ----------
    benchmark : Path
        The JSON file of ``scripts/benchmark.py``.

    Raises
    ------
    FileError
        If the file cannot be read, or does not hold both times.
    """
    try:
        variants = json.loads(read_regular(benchmark, _LARGEST))["variants"]
        return float(variants[_PYTORCH]["step_ms"] / variants[_OURS]["step_ms"])
    except (ValueError, KeyError, TypeError, ZeroDivisionError, RecursionError) as error:
        raise FileError(f"{benchmark}: it has no times of {_OURS} and {_PYTORCH}") from error
