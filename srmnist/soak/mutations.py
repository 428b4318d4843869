"""Damaged and forged files are given to the functions that read files."""

import contextlib
import io
import re
import resource
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import chainer
import numpy as np

from srmnist import data
from srmnist.model import CNNAE
from srmnist.soak import forgeries
from srmnist.soak.small_runs import BATCHSIZE, finish, run_script, small_data, train_command
from srmnist.system.errors import UserError
from srmnist.training.pairs import Pairs
from srmnist.training.settings import Settings, identity
from srmnist.training.snapshots import Snapshots
from srmnist.training.trainer import build_trainer, initial_model
from srmnist.weights import load_weights

_MEMORY = 1 << 30
_SECONDS = 20
# One file in this many is given to the script too, which takes a hundred times as long.
_THROUGH_SCRIPT = 25


def mutate_files(
    script: Path,
    number: int,
    seed: int,
    progress: Callable[[int], None],
    run: Callable[[list[str]], subprocess.CompletedProcess] = run_script,
) -> tuple[Counter[str], list[str]]:
    """Damage and forge snapshots, weights and IDX files, and load them.

    Each file must be refused with a `UserError` or load to equal arrays, within 20 seconds and 1 GiB. One in
    twenty-five is also given to the training script, which must refuse it in one line and change no file.

    Parameters
    ----------
    script : Path
        ``scripts/train.py``.
    number : int
        Number of files.
    seed : int
        Fixes all files.
    progress : callable
        Is called with the number of files so far.
    run : callable
        Runs a command of the training script to its end.

    Returns
    -------
    counts : Counter
        Of ``refused``, ``equal``, ``crashed``, and ``through the script``.
    failures : list of str
        A line for each crash: the file and the error.
    """
    counts: Counter[str] = Counter()
    failures = []
    with tempfile.TemporaryDirectory() as directory:
        bench = _Bench(script, Path(directory), run)
        for count in range(1, number + 1):
            random = Random(f"{seed} {count}")
            target = random.choice(bench.targets)
            mutated = target.mutate(random)
            try:
                with _bounded():
                    counts[target.load(mutated)] += 1
                if count % _THROUGH_SCRIPT == 0 and target.run is not None:
                    counts["through the script"] += 1
                    target.run(mutated)
            except Exception as error:
                counts["crashed"] += 1
                failures.append(f"seed {seed}, file {count}, {target.name}: {error!r}")
            progress(count)
    return counts, failures


@dataclass(frozen=True)
class _Target:
    name: str
    mutate: Callable[[Random], bytes]
    load: Callable[[bytes], str]
    run: Callable[[bytes], None] | None


class _Bench:
    """Good files to mutate, and for each kind the way to load it."""

    def __init__(
        self, script: Path, home: Path, run: Callable[[list[str]], subprocess.CompletedProcess]
    ) -> None:
        self.home = home
        self.run = run
        self.command = train_command(script, home / "data", "--epoch", 1)
        small_data(home / "data")
        finish([*self.command, "--snapshot-every", "7"], home / "out", run)
        self.settings = Settings(epoch=1, batchsize=BATCHSIZE, data=str(home / "data"))
        self.dataset = data.load_dataset(home / "data")
        self.pairs = [Pairs(split.images, self.settings.size) for split in self.dataset]
        self.targets = [
            self._npz("weights", "model.npz", self.load_weights, None),
            self._npz("snapshot", "snapshot_iter_8.npz", self.load_snapshot, self.resume),
            self._npz("snapshot in mid-epoch", "snapshot_iter_7.npz", self.load_snapshot, None),
            self._idx("IDX", "", forgeries.forge_idx),
            self._idx("IDX.gz", ".gz", forgeries.forge_idx_gz),
        ]

    def _npz(self, name: str, file: str, load: Callable, run: Callable | None) -> _Target:
        good = (self.home / "out" / file).read_bytes()
        with np.load(io.BytesIO(good), allow_pickle=False) as npz:
            arrays = dict(npz)

        def mutate(random: Random) -> bytes:
            return random.choice([forgeries.damage, forgeries.forge_npz])(good, random)

        return _Target(name, mutate, lambda mutated: load(mutated, arrays), run)

    def _idx(self, name: str, suffix: str, forge: Callable[[bytes, Random], bytes]) -> _Target:
        good = (self.home / "data" / "train-images-idx3-ubyte").read_bytes()

        def mutate(random: Random) -> bytes:
            # There is no checksum, so other pixels are as good; only the size can be wrong.
            return forge(good, random) if suffix else random.choice([forge, _resize])(good, random)

        def load(mutated: bytes) -> str:
            path = self._write(f"mutated{suffix}", mutated)
            try:
                equal = np.array_equal(data.read_idx(path, 0x803), self.dataset.train.images)
            except UserError:
                return "refused"
            return _equal(equal)

        def run(mutated: bytes) -> None:
            directory = self.home / "mutated-data"
            directory.mkdir(exist_ok=True)
            for file in directory.iterdir():
                file.unlink()
            good_test = (self.home / "data" / "t10k-images-idx3-ubyte").read_bytes()
            self._write("mutated-data/t10k-images-idx3-ubyte", good_test)
            self._write(f"mutated-data/train-images-idx3-ubyte{suffix}", mutated)
            self._run_script("--data", str(directory))

        return _Target(name, mutate, load, run)

    def load_weights(self, mutated: bytes, arrays: dict[str, np.ndarray]) -> str:
        model = CNNAE()
        try:
            load_weights(self._write("mutated.npz", mutated), model)
        except UserError:
            return "refused"
        found = chainer.serializers.npz.serialize(model)
        return _equal(all(np.array_equal(found[name], array) for name, array in arrays.items()))

    def load_snapshot(self, mutated: bytes, arrays: dict[str, np.ndarray]) -> str:
        model = initial_model(self.settings.seed)
        trainer = build_trainer(model, *self.pairs, self.settings, self.home / "out", io.StringIO())
        snapshots = Snapshots(identity(self.settings, self.dataset))
        try:
            snapshots.load(self._write("mutated.npz", mutated), trainer)
        except UserError:
            return "refused"
        found = snapshots.arrays(trainer)
        names = arrays.keys() - {"_snapshot_elapsed_time"}
        return _equal(all(np.array_equal(found[name], arrays[name]) for name in names))

    def resume(self, mutated: bytes) -> None:
        self._run_script("--resume", str(self._write("mutated.npz", mutated)))

    def _run_script(self, *flags: str) -> None:
        out = self.home / "out"
        before = {path: path.read_bytes() for path in out.iterdir()}
        done = self.run([*self.command, *flags, "--out", str(out)])
        one_line = re.fullmatch(r"[^\n]+\n", done.stderr)
        unchanged = before == {path: path.read_bytes() for path in out.iterdir()}
        if done.returncode != 0 and not (done.returncode == 2 and one_line and unchanged):
            raise RuntimeError(f"exit status {done.returncode}, unchanged {unchanged}: {done.stderr}")

    def _write(self, name: str, content: bytes) -> Path:
        path = self.home / name
        path.write_bytes(content)
        return path


def _resize(data: bytes, random: Random) -> bytes:
    cut = random.randrange(len(data))
    return random.choice([data[:cut], data + data[:cut], data[:cut] + data[cut + 1 :]])


def _equal(equal: bool) -> str:
    if not equal:
        raise RuntimeError("loaded, with other arrays")
    return "equal"


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Let a block take at most 20 seconds, and 1 GiB more memory than the process has already."""

    def stop(signum: int, frame: object) -> None:
        raise TimeoutError(f"more than {_SECONDS} seconds")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _MEMORY, limits[1]))
    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)
