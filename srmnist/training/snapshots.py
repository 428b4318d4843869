"""Snapshots: a run on disk, from which it goes on to the same bits."""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import chainer
import numpy as np
from chainer import training

from srmnist.system.archive import read_npz
from srmnist.system.errors import UserError
from srmnist.system.files import FileError
from srmnist.training.reports import LOSS, parse_log
from srmnist.weights import save_arrays

_NAME = "snapshot_iter_{}.npz"
# Where a run starts over, the snapshots of the earlier one wait under this name until there is a new one.
_EARLIER = "snapshot_earlier_iter_{}.npz"
# The order of an epoch follows from the seed and the epoch, so that no file can prescribe another.
_ORDER = "updater/iterator:main/order"


class Snapshots(training.Extension):
    """Trainer extension that saves the whole trainer to ``snapshot_iter_N.npz`` and keeps the last two.

    Parameters
    ----------
    settings : mapping of str to int or str
        The flags, and their values, that a run must have in common with the one that goes on from its
        snapshots. They are saved with it. Only ``batchsize`` may differ, where several processes together
        make batches as large as before.
    """

    name = "snapshot"
    priority = -100

    def __init__(self, settings: Mapping[str, int | str]) -> None:
        self._settings = settings
        # Batches made before this run began, as (size, how many): another number of processes makes others.
        self._earlier: list[tuple[int, int]] = []

    def __call__(self, trainer: training.Trainer) -> None:
        out = Path(trainer.out)
        iteration = trainer.updater.iteration
        arrays = self.arrays(trainer)
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise UserError(
                    f"diverged: {name} has a value that is not finite at iteration {iteration}; "
                    f"snapshots in {out} are from before"
                )
        save_arrays(out / _NAME.format(iteration), arrays)
        snapshots = find_snapshots(out)
        before = max((other for other in snapshots if other < iteration), default=None)
        for other, path in snapshots.items():
            if other not in (iteration, before):
                path.unlink()
        for path in out.glob(_EARLIER.format("*")):
            path.unlink()

    def arrays(self, trainer: training.Trainer) -> dict[str, np.ndarray]:
        """What a snapshot of a running trainer holds."""
        arrays = chainer.serializers.npz.serialize(trainer)
        del arrays[_ORDER]
        others = {"batches": np.asarray(json.dumps(self._batches(trainer)))} | self._saved_settings()
        return {name: np.asarray(array) for name, array in arrays.items()} | others

    def _saved_settings(self) -> dict[str, np.ndarray]:
        return {f"settings/{flag}": np.asarray(value) for flag, value in self._settings.items()}

    def load(self, path: Path, trainer: training.Trainer) -> None:
        """Bring a trainer to where it was when the snapshot was taken.

        Raises
        ------
        FileError
            If the snapshot is damaged, or not one of such a trainer.
        UserError
            If it was taken with other settings.
        """
        iterator = trainer.updater.get_iterator("main")
        # Of other settings, the snapshot may hold other arrays, too; but the settings are what is wrong.
        expected = self._saved_settings() | {"batches": np.asarray("")}
        found = read_npz(path, expected, others=True)
        try:
            batches = _parse_batches(found.pop("batches").item())
            self._require_same(path, found, batches[-1][0] == iterator.batch_size)
            arrays = read_npz(path, self._template(trainer))
            _check_progress(arrays, len(iterator.dataset), batches)
        except ValueError as error:
            raise FileError(f"{path}: {error}") from error
        self._earlier = batches
        iterator.order_sampler.epoch = int(arrays["updater/iterator:main/epoch"])
        arrays[_ORDER] = iterator.order_sampler(np.arange(len(iterator.dataset)), 0)
        chainer.serializers.NpzDeserializer(arrays).load(trainer)

    def resume(self, source: Path, trainer: training.Trainer) -> Path:
        """Load a snapshot, or the newest readable one in a directory; a damaged one is named on stderr.

        Returns
        -------
        Path
            The snapshot loaded.

        Raises
        ------
        UserError
            If there is none, or as `load` does.
        """
        if not source.is_dir():
            self.load(source, trainer)
            return source
        snapshots = find_snapshots(source)
        if not snapshots:
            raise UserError(f"--resume: no snapshot in {source}")
        for path in reversed(snapshots.values()):
            try:
                self.load(path, trainer)
                return path
            except FileError as error:
                print(f"{error}; trying the snapshot before it", file=sys.stderr)
        raise UserError(f"--resume: no snapshot in {source} can be read")

    def _require_same(self, path: Path, found: Mapping[str, np.ndarray], same_batches: bool) -> None:
        """Refuse a snapshot of other settings; another --batchsize may still make the same batches."""
        for name, value in found.items():
            flag = name.removeprefix("settings/")
            if value != self._settings[flag] and not (flag == "batchsize" and same_batches):
                raise UserError(_differs(path, flag, value.item(), self._settings[flag]))

    def _template(self, trainer: training.Trainer) -> dict[str, np.ndarray]:
        """What a snapshot of this trainer would hold now, had it begun."""
        make_loadable(trainer)
        return self.arrays(trainer)

    def _batches(self, trainer: training.Trainer) -> list[tuple[int, int]]:
        """All batches made so far, as (size, how many), in their order."""
        size = trainer.updater.get_iterator("main").batch_size
        *others, (last, number) = self._earlier or [(size, 0)]
        steps = trainer.updater.iteration - sum(number for _, number in others)
        if last == size:
            return [*others, (size, steps)]
        return [*others, (last, number), (size, steps - number)]


def make_loadable(trainer: training.Trainer) -> None:
    """Give a trainer what it would have, had it begun: Adam's moments, and a time."""
    for param in trainer.updater.get_optimizer("main").target.params():
        param.update_rule._init_states(param)
    trainer._start_at = 0.0


def find_snapshots(out: Path) -> dict[int, Path]:
    """The snapshots in a directory by their iteration, the newest last."""
    pattern = re.compile(_NAME.format(r"(\d{1,18})"))
    matches = ((pattern.fullmatch(path.name), path) for path in out.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def set_aside(out: Path, start: Path | None) -> list[Path]:
    """Give the snapshots that do not lead to `start` a name that no later ``--resume`` will pick by itself.

    Parameters
    ----------
    out : Path
        The directory of the run.
    start : Path or None
        The snapshot from which the run goes on.

    Returns
    -------
    list of Path
        The new names; the first snapshot of the run will remove them.
    """
    snapshots = find_snapshots(out)
    start_at = next((i for i, path in snapshots.items() if start and path.samefile(start)), -1)
    aside = []
    for iteration, path in snapshots.items():
        if iteration > start_at:
            aside.append(path.replace(out / _EARLIER.format(iteration)))
    return aside


def _differs(path: Path, flag: str, found: int | str, wanted: int | str) -> str:
    what = "other images" if flag == "data" else f"{found}, not {wanted}"
    return f"--{flag}: {path} is of a run with {what}; give the same, or begin anew without --resume"


def _parse_batches(text: str) -> list[tuple[int, int]]:
    """The batches of a snapshot, which anybody may have made."""
    try:
        batches = [(size, number) for size, number in json.loads(text)]
        if not batches or not all(type(n) is int and 0 < n < 2**63 for pair in batches for n in pair):
            raise ValueError
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError("its batches are no list of sizes and numbers") from error
    return batches


def _seen(batches: Iterable[tuple[int, int]], iteration: int) -> int:
    """Images seen in the first `iteration` steps."""
    images = 0
    for size, number in batches:
        images += size * min(number, iteration)
        iteration -= min(number, iteration)
    return images


def _epoch_ends(batches: Iterable[tuple[int, int]], images: int, most: int) -> list[int]:
    """The steps that ended an epoch of so many images, the first `most` of them."""
    ends: list[int] = []
    seen = iteration = 0
    for size, number in batches:
        while len(ends) < most and (len(ends) + 1) * images <= seen + size * number:
            ends.append(iteration - (seen - (len(ends) + 1) * images) // size)
        seen += size * number
        iteration += number
    return ends


def _check_progress(arrays: Mapping[str, np.ndarray], images: int, batches: list[tuple[int, int]]) -> None:
    """Refuse a snapshot whose counters disagree: all of them follow from its batches."""
    iteration = sum(number for _, number in batches)
    log = parse_log(arrays["extensions/LogReport/_log"].item())
    epoch, position = divmod(_seen(batches, iteration), images)
    epoch_before, position_before = divmod(_seen(batches, iteration - 1), images)
    ends = _epoch_ends(batches, images, len(log))
    if (
        arrays["updater/iteration"] != iteration
        or len(log) != epoch
        or ends != [entry["iteration"] for entry in log]
    ):
        raise ValueError(f"its log does not fit its {iteration} iterations")
    progress = {
        "t": iteration,
        "iteration": iteration,
        "previous_iteration": iteration,
        "epoch": epoch,
        "current_position": position,
        "is_new_epoch": epoch > epoch_before,
        "previous_epoch_detail": epoch + position / images,
        "_names": json.dumps([LOSS]),
        "_n": iteration - (ends[-1] if ends else 0),
        # Of the step before, as the loop asks for its end before each step:
        "stop_trigger/previous_iteration": iteration - 1,
        "stop_trigger/previous_epoch_detail": epoch_before + position_before / images,
        "updater/iterator:main/previous_epoch_detail": epoch_before + position_before / images,
    }
    for name, array in arrays.items():
        right = progress.get(name, progress.get(name.rpartition("/")[2]))
        if right is not None and array != right:
            raise ValueError(f"{name} is {array}, not {right}")
    if arrays["_snapshot_elapsed_time"] < 0:
        raise ValueError("its elapsed time is negative")
