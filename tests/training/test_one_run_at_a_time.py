"""One run at a time into a directory, and none that has diverged."""

import os
import time

import numpy as np
import pytest

import srmnist
from helpers.forks import at_call, fork, needs_fork, run_forked
from helpers.runs import command, finish, run_here
from helpers.users import refusal, tree, wait_for
from srmnist.soak.small_runs import results
from srmnist.weights import save_arrays


@needs_fork
def test_second_run_is_refused_until_the_first_is_dead(home, tmp_path):
    out = tmp_path / "out"

    def hang() -> None:
        (tmp_path / "writing").touch()
        while True:
            time.sleep(1)

    first = fork(command(home / "data", out), before=lambda: at_call(os, "replace", 0, hang))
    wait_for(tmp_path / "writing", first)
    before = tree(tmp_path)
    assert "another run is writing there" in refusal(run_forked(command(home / "data", out)))
    assert tree(tmp_path) == before
    first.kill()
    finish(home / "data", out)
    assert results(out) == results(home / "untouched")
    assert not list(out.glob(".part-*"))  # the first run had left one


@pytest.mark.parametrize("name", ["updater/model:main/conv1/W", "updater/optimizer:main/conv1/W/m"])
def test_diverged_run_stops_at_its_iteration_and_keeps_finite_snapshots(home, tmp_path, name):
    """It goes on from weights that are finite, and too large for what is computed from them."""
    with np.load(home / "untouched" / "snapshot_iter_16.npz") as npz:
        arrays = dict(npz)
    arrays[name] = np.full_like(arrays[name], 3e38)
    save_arrays(tmp_path / "diverging.npz", arrays)
    out = tmp_path / "out"
    with pytest.raises(srmnist.UserError, match=r"^diverged: .* at iteration \d+; snapshots in "):
        run_here(home / "data", out, tmp_path / "diverging.npz")
    for path in out.glob("*.npz"):
        with np.load(path) as npz:
            assert all(np.isfinite(npz[name]).all() for name in npz if npz[name].dtype.kind == "f")
    assert "NaN" not in ((out / "log").read_text() if (out / "log").exists() else "")
    with pytest.raises(srmnist.UserError, match=r"^diverged: .* at iteration \d+$"):
        run_here(home / "data", None, tmp_path / "diverging.npz")  # there are no snapshots to name
