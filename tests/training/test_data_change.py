"""A run whose data somebody changes or removes ends in one line at worst, and its snapshots stay good."""

import os
import shutil

import pytest

import srmnist  # noqa: F401 – first: it makes Chainer import  # isort: skip
from chainer.training.updaters import StandardUpdater
from srmnist.soak.small_runs import results
from helpers.forks import at_call, needs_fork, run_forked
from helpers.runs import STEPS, command, finish
from helpers.users import complaints, refusal

pytestmark = needs_fork
IN_SECOND_EPOCH = STEPS + 3


@pytest.fixture
def own_data(home, tmp_path):
    """A copy of the data set of `home`."""
    return shutil.copytree(home / "data", tmp_path / "data")


@pytest.mark.parametrize("half", ["train", "t10k"])
def test_file_that_shrinks_during_a_run_costs_no_snapshot(home, own_data, tmp_path, half):
    images = own_data / f"{half}-images-idx3-ubyte"
    shrink = lambda: os.truncate(images, 1000)  # noqa: E731
    done = run_forked(
        command(own_data, tmp_path / "out"),
        before=lambda: at_call(StandardUpdater, "update", IN_SECOND_EPOCH, shrink),
    )
    if done.returncode != 0:  # the run needed the file again
        assert refusal(done).startswith(f"{images}: has changed while it was in use")
    finish(home / "data", tmp_path / "out")
    assert results(tmp_path / "out") == results(home / "untouched")


def test_data_that_vanish_during_a_run_stay_the_runs(home, own_data, tmp_path):
    done = run_forked(
        command(own_data, tmp_path / "out"),
        before=lambda: at_call(StandardUpdater, "update", IN_SECOND_EPOCH, lambda: shutil.rmtree(own_data)),
    )
    assert (done.returncode, complaints(done.stderr)) == (0, "")
    assert not own_data.exists()
    assert results(tmp_path / "out") == results(home / "untouched")
