"""One run at a time into a directory, and none that has diverged."""

import signal
import subprocess

import numpy as np
import pytest

from srmnist.weights import save_arrays
from srmnist.soak.small_runs import finish, results, small_data, train_command
from helpers.users import TRAIN, refusal, run, sabotage, tree, wait_for


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    small_data(home / "data")
    finish(train_command(TRAIN, home / "data", "--epoch", 1), home / "untouched")
    return home


@pytest.fixture
def command(home, tmp_path):
    return [*train_command(TRAIN, home / "data", "--epoch", 1), "--out", str(tmp_path / "out")]


def test_second_run_is_refused_until_the_first_is_dead(command, home, tmp_path):
    slow = sabotage(command, "replace", 0, "open('writing', 'w'); time.sleep(60)")
    first = subprocess.Popen(slow, cwd=tmp_path, stdout=subprocess.DEVNULL)
    wait_for(tmp_path / "writing", first)
    before = tree(tmp_path)
    assert "another run is writing there" in refusal(run(command))
    assert tree(tmp_path) == before
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert run(command).returncode == 0
    assert results(tmp_path / "out") == results(home / "untouched")


def diverging(home, name: str):
    """A snapshot whose weights are finite, and too large for what is computed from them."""
    path = home / "untouched" / "snapshot_iter_8.npz"
    with np.load(path) as npz:
        arrays = dict(npz)
    arrays[name] = np.full_like(arrays[name], 3e38)
    save_arrays(home / "diverging.npz", arrays)
    return home / "diverging.npz"


@pytest.mark.parametrize("name", ["updater/model:main/conv1/W", "updater/optimizer:main/conv1/W/m"])
def test_diverged_run_stops_at_its_iteration_and_keeps_finite_snapshots(command, home, tmp_path, name):
    snapshot = diverging(home, name)
    done = run([*command, "--epoch", "2", "--snapshot-every", "1", "--resume", str(snapshot)])
    line = refusal(done)
    assert "diverged" in line
    assert "iteration" in line
    for path in (tmp_path / "out").glob("*.npz"):
        with np.load(path) as npz:
            assert all(np.isfinite(npz[name]).all() for name in npz if npz[name].dtype.kind == "f")
    assert "NaN" not in (
        (tmp_path / "out" / "log").read_text() if (tmp_path / "out" / "log").exists() else ""
    )
