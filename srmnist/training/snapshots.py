"""Snapshots: the state of a run on disk. A run that goes on from a snapshot ends with the same bits."""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import chainer
import numpy as np
from chainer import training

from srmnist.system.archive import holds, read_npz
from srmnist.system.errors import UserError
from srmnist.system.files import FileError
from srmnist.training.divergence import require_finite
from srmnist.training.settings import ONE_PROCESS, OWN_IMAGES
from srmnist.training.snapshot_check import Batches, check_progress, parse_batches
from srmnist.weights import save_arrays

_NAME = "snapshot_iter_{}.npz"
# When a run starts over, the snapshots of the earlier run are kept under this name until there is a new one.
_EARLIER = "snapshot_earlier_iter_{}.npz"
# Not saved: the order of an epoch follows from the seed and the epoch, and no file may give another one.
_ORDER = "updater/iterator:main/order"


class Snapshots(training.Extension):
    """Trainer extension that saves the whole trainer to ``snapshot_iter_N.npz`` and keeps the last two.

    Parameters
    ----------
    settings : mapping of str to int or str
        The run's `identity`. It is saved with each snapshot, and a run goes on from a snapshot only if the
        two are equal. ``batchsize`` may differ if another number of processes makes batches of the same size
        as before; ``sync-bn`` may differ if one process goes on for several, or the reverse.
    """

    name = "snapshot"
    priority = -100

    def __init__(self, settings: Mapping[str, int | str]) -> None:
        self._settings = settings
        # Batches made before this run began; another number of processes makes batches of another size.
        self._earlier: Batches = []

    def __call__(self, trainer: training.Trainer) -> None:
        out = Path(trainer.out)
        iteration = trainer.updater.iteration
        arrays = self.arrays(trainer)
        require_finite(arrays, iteration, out)
        save_arrays(out / _NAME.format(iteration), arrays)
        snapshots = find_snapshots(out)
        before = max((other for other in snapshots if other < iteration), default=None)
        for other, path in snapshots.items():
            if other not in (iteration, before):
                path.unlink()
        for path in find_earlier(out):
            path.unlink()

    def arrays(self, trainer: training.Trainer) -> dict[str, np.ndarray]:
        """The arrays of a snapshot of the trainer, by their names."""
        arrays = chainer.serializers.npz.serialize(trainer)
        del arrays[_ORDER]
        others = {"batches": np.asarray(json.dumps(self._batches(trainer)))} | self._saved_settings()
        return {name: np.asarray(array) for name, array in arrays.items()} | others

    def _saved_settings(self) -> dict[str, np.ndarray]:
        return {f"settings/{flag}": np.asarray(value) for flag, value in self._settings.items()}

    def load(self, path: Path, trainer: training.Trainer) -> None:
        """Load a snapshot into a trainer.

        Raises
        ------
        FileError
            If the snapshot is damaged, or is not a snapshot of such a trainer.
        UserError
            If its run had other settings.
        """
        iterator = trainer.updater.get_iterator("main")
        # The settings first: with other settings there may be other arrays, but the settings are the cause.
        expected = self._saved_settings() | {"batches": np.asarray("")}
        try:
            found = read_npz(path, expected, others=True)
        except FileError as error:
            if holds(path, "conv1/W"):
                raise FileError(
                    f"--resume: {path}: holds weights, not a snapshot; give a snapshot_iter_N.npz"
                ) from error
            raise
        try:
            batches = parse_batches(found.pop("batches").item())
            self._require_same(path, found, batches[-1][0] == iterator.batch_size)
            arrays = read_npz(path, self.arrays(trainer))
            check_progress(arrays, len(iterator.dataset), batches)
        except ValueError as error:
            raise FileError(f"{path}: {error}") from error
        self._earlier = batches
        iterator.order_sampler.epoch = int(arrays["updater/iterator:main/epoch"])
        arrays[_ORDER] = iterator.order_sampler(np.arange(len(iterator.dataset)), 0)
        chainer.serializers.NpzDeserializer(arrays).load(trainer)

    def resume(self, source: Path, trainer: training.Trainer) -> Path:
        """Load a snapshot, or the newest readable one in a directory; damaged ones are named on stderr.

        Returns
        -------
        Path
            The snapshot loaded.

        Raises
        ------
        UserError
            If there is no snapshot, or as `load` does.
        """
        if not source.is_dir():
            self.load(source, trainer)
            return source
        snapshots = find_snapshots(source)
        if not snapshots:
            earlier = find_earlier(source)
            hint = f"; to go on with an earlier run, give --resume {earlier[-1]}" if earlier else ""
            raise UserError(f"--resume: no snapshot in {source}{hint}")
        for path in reversed(snapshots.values()):
            try:
                self.load(path, trainer)
                return path
            except FileError as error:
                print(f"{error}; trying the snapshot before it", file=sys.stderr)
        raise UserError(f"--resume: no snapshot in {source} can be read")

    def _require_same(self, path: Path, found: Mapping[str, np.ndarray], same_batches: bool) -> None:
        """Refuse a snapshot of other settings."""
        for name, value in found.items():
            flag = name.removeprefix("settings/")
            before, now = value.item(), self._settings[flag]
            if before == now or (flag == "batchsize" and same_batches):
                continue
            if flag == "sync-bn" and ONE_PROCESS in (before, now):
                # One process normalises whole batches, as --sync-bn makes several do.
                if OWN_IMAGES in (before, now):
                    print(
                        f"--resume: {path} is of a run with {before}; it goes on with {now}", file=sys.stderr
                    )
                continue
            what = "other images" if flag == "data" else f"{before}, not {now}"
            raise UserError(
                f"--{flag}: {path} is of a run with {what}; give the same, or start without --resume"
            )

    def _batches(self, trainer: training.Trainer) -> Batches:
        """All batches so far, in their order, as pairs (size, number)."""
        size = trainer.updater.get_iterator("main").batch_size
        *others, (last, number) = self._earlier or [(size, 0)]
        iterations = trainer.updater.iteration - sum(number for _, number in others)
        if last == size:
            return [*others, (size, iterations)]
        return [*others, (last, number), (size, iterations - number)]


def find_snapshots(out: Path) -> dict[int, Path]:
    """The snapshots in a directory by their iteration, the newest last."""
    return _find(out, _NAME)


def find_earlier(out: Path) -> list[Path]:
    """The earlier run's snapshots, which the run that started over has kept; the newest last."""
    return list(_find(out, _EARLIER).values())


def _find(out: Path, name: str) -> dict[int, Path]:
    pattern = re.compile(name.format(r"(\d{1,18})"))
    matches = ((pattern.fullmatch(path.name), path) for path in out.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def set_aside(out: Path, start: Path | None) -> list[Path]:
    """Rename the snapshots that do not lead to `start`, so that no later ``--resume`` finds them by itself.

    Parameters
    ----------
    out : Path
        The directory of the run.
    start : Path or None
        The snapshot from which the run goes on.

    Returns
    -------
    list of Path
        The new paths, the newest last; the first snapshot of the run removes these files.
    """
    snapshots = find_snapshots(out)
    start_at = next((i for i, path in snapshots.items() if start and path.samefile(start)), -1)
    return [
        path.replace(out / _EARLIER.format(iteration))
        for iteration, path in snapshots.items()
        if iteration > start_at
    ]
