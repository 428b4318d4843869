"""Fixtures for all tests: a small data set, both ways to compute, and scripts run as a user runs them."""

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
import chainer
from helpers import forks, runs, users
from srmnist.soak.small_runs import small_data
from srmnist.training.trainer import initial_model

pytest_plugins = ["helpers.gpu_engine"]
ROOT = Path(__file__).parents[1]

with suppress(ImportError):  # the tests that need hypothesis are skipped without it
    from hypothesis import settings

    # Every run tries the same examples; `pytest --hypothesis-profile default` draws others.
    settings.register_profile("same examples", derandomize=True)
    settings.load_profile("same examples")

# Many tests start a process. Where Python is told to keep no compiled modules, each would compile Chainer and
# matplotlib again, for several seconds.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    os.environ["PYTHONPYCACHEPREFIX"] = str(ROOT / ".pytest_cache" / "compiled")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m gpu``, collect only what needs a GPU: its computer may lack what other tests import."""
    if config.option.markexpr == "gpu" and collection_path.suffix == ".py":
        return None if "gpu" in collection_path.name else True
    return None


@pytest.fixture(params=["accelerated", "plain"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test twice: with the engine that applies, and with Chainer's own functions."""
    with chainer.using_config("plain", request.param == "plain"):
        yield request.param


@pytest.fixture(scope="session")
def reference() -> dict[str, np.ndarray]:
    """20 steps of the article's model on the stack of its day: Chainer 7.8.1 on NumPy 1.23.5."""
    with np.load(Path(__file__).with_name("reference_seed0.npz")) as npz:
        return dict(npz)


@pytest.fixture(scope="session")
def mnist() -> tuple[np.ndarray, np.ndarray]:
    """The embedded MNIST as float32, training and test images."""
    return srmnist.load_mnist()


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an IDX file of unsigned bytes."""
    magic = 0x00000800 + array.ndim
    path.write_bytes(struct.pack(f">I{array.ndim}I", magic, *array.shape) + array.tobytes())


@pytest.fixture(scope="session")
def small_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of IDX files: MNIST's first 256 training and 64 test images, with labels."""
    directory = tmp_path_factory.mktemp("mnist")
    train, test = srmnist.load_dataset()
    for half, split, count in (("train", train, 256), ("t10k", test, 64)):
        write_idx(directory / f"{half}-images-idx3-ubyte", split.images[:count])
        write_idx(directory / f"{half}-labels-idx1-ubyte", split.labels[:count])
    return directory


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with MNIST's first 128 and 64 images in ``data``, and a run that nothing has touched."""
    home = tmp_path_factory.mktemp("home")
    small_data(home / "data")
    runs.run_here(home / "data", home / "untouched")
    return home


@pytest.fixture
def data(home: Path) -> Path:
    """The data set of `home`."""
    return home / "data"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """File of a model's weights before any training."""
    chainer.serializers.save_npz(tmp_path / "model.npz", initial_model(0))
    return tmp_path / "model.npz"


def decode(content: bytes) -> np.ndarray:
    """A picture's pixels."""
    import cv2  # the tests that need a GPU run without it

    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def run_python(*args: str | Path, cwd: Path | None = None, **kwds) -> subprocess.CompletedProcess:
    """Run Python in a fresh process and capture what it says."""
    return users.run([sys.executable, *map(str, args)], cwd=cwd, **kwds)


@pytest.fixture(scope="session")
def script() -> Callable[..., subprocess.CompletedProcess]:
    """Run one of the scripts: ``script("train.py", "--epoch", 1, cwd=...)``.

    It runs in a fork of this process, which has imported what takes seconds; with keywords of
    `subprocess.run`, or where there is no fork, in a fresh process.
    """

    def run(name: str, *args: str | int | Path, cwd: Path, **kwds) -> subprocess.CompletedProcess:
        command = [sys.executable, str(users.SCRIPTS / name), *map(str, args)]
        if kwds or not hasattr(os, "fork"):
            return users.run(command, cwd=cwd, **kwds)
        done = forks.run_forked(command, cwd=cwd)
        done.stderr = users.complaints(done.stderr)
        return done

    return run
