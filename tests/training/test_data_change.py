"""A run whose data somebody changes or removes ends in one line at worst, and its snapshots stay good."""

import os
import shutil

import numpy as np
import pytest

import srmnist  # noqa: F401 – first: it makes Chainer import  # isort: skip
from chainer.training.updaters import StandardUpdater
from srmnist.soak.small_runs import results
from srmnist.training import settings
from helpers.forks import at_call, needs_fork, run_forked
from helpers.runs import STEPS, command, finish
from helpers.users import complaints, refusal

pytestmark = needs_fork
IN_SECOND_EPOCH = STEPS + 3


@pytest.fixture
def own_data(home, tmp_path):
    """A copy of the data set of `home`."""
    return shutil.copytree(home / "data", tmp_path / "data")


def run_until(own_data, out, deed):
    """A run in whose second epoch something happens."""
    return run_forked(
        command(own_data, out), before=lambda: at_call(StandardUpdater, "update", IN_SECOND_EPOCH, deed)
    )


def assert_goes_on(home, out):
    """The snapshots of the run lead to the results of a run that nothing has disturbed."""
    finish(home / "data", out)
    assert results(out) == results(home / "untouched")


def cut(path):
    os.truncate(path, 1000)


def write_again(path):
    """Other bytes, as many as before."""
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


@pytest.mark.parametrize("change", [cut, write_again])
@pytest.mark.parametrize("half", ["train", "t10k"])
def test_file_that_changes_during_a_run_ends_it_and_costs_no_snapshot(home, own_data, tmp_path, half, change):
    images = own_data / f"{half}-images-idx3-ubyte"
    done = run_until(own_data, tmp_path / "out", lambda: change(images))
    assert refusal(done).startswith(f"{images}: has changed while it was in use")
    assert list((tmp_path / "out").glob("snapshot_iter_*"))
    assert_goes_on(home, tmp_path / "out")


def test_file_that_shrinks_before_the_digest_writes_nothing(own_data, tmp_path):
    images = own_data / "train-images-idx3-ubyte"
    done = run_forked(
        command(own_data, tmp_path / "out"),
        before=lambda: at_call(settings, "_digest", 0, lambda: cut(images)),
    )
    assert refusal(done).startswith(f"{images}: has changed while it was in use")


def test_data_that_vanish_during_a_run_stay_the_runs(home, own_data, tmp_path):
    done = run_until(own_data, tmp_path / "out", lambda: shutil.rmtree(own_data))
    assert (done.returncode, complaints(done.stderr)) == (0, "")
    assert not own_data.exists()
    assert results(tmp_path / "out") == results(home / "untouched")


def test_run_that_needs_more_memory_than_there_is_ends_in_one_line_and_costs_no_snapshot(home, tmp_path):
    done = run_until(home / "data", tmp_path / "out", lambda: np.empty(1 << 60, np.uint8))
    assert refusal(done).startswith("out of memory: ")
    assert_goes_on(home, tmp_path / "out")
