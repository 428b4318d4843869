"""A run that is stopped at any moment goes on to the bits of one that was never touched."""

import json
import os
import re
import shlex
import shutil
import signal
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest

import srmnist
from helpers.forks import at_call, die, fork, needs_fork, run_forked
from helpers.runs import STEPS, command, finish, run_here
from helpers.users import TRAIN, complaints, refusal, run, tree, wait_for
from srmnist.soak import kill_runs
from srmnist.soak.small_runs import results, small_data
from srmnist.training.snapshots import Snapshots
from srmnist.training.updater import Updater

pytestmark = needs_fork


@pytest.fixture
def untouched(home):
    return results(home / "untouched")


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def finished(home, out) -> Path:
    """A directory with the files of a finished run."""
    shutil.copytree(home / "untouched", out)
    return out


def snapshots(out: Path) -> list[int]:
    return sorted(int(re.search(r"\d+", path.name)[0]) for path in out.glob("snapshot_iter_*.npz"))


def signalled(signum: int, step: int = 11):
    """What sends the run a signal in a step; the first is number 0."""
    return lambda: at_call(Updater, "update_core", step, lambda: os.kill(os.getpid(), signum))


# What a run does, and may be killed at: a step, or either half of writing a file.
MOMENTS = ((Updater, "update_core"), (os, "fsync"), (os, "replace"))


def test_runs_killed_at_twenty_random_moments_resume_to_the_same_bits(data, tmp_path, untouched):
    random = Random(7)
    for number in range(4):
        out = tmp_path / f"out{number}"
        killed = 0
        while killed < 5:
            moment = (*random.choice(MOMENTS), random.randrange(4))
            resume = ["--resume"] if snapshots(out) else []
            flags = ["--snapshot-every", random.choice([1, 2, 3, 5, 50]), *resume]
            done = run_forked(command(data, out, *flags), before=lambda moment=moment: at_call(*moment, die))
            if done.returncode == 0:
                break
            assert (done.returncode, complaints(done.stderr)) == (-signal.SIGKILL, "")
            killed += 1
        assert killed > 0
        finish(data, out)
        assert results(out) == untouched
        assert not list(out.glob(".part-*"))


def test_soak_kills_real_processes_and_counts_those_that_survive():
    kills = kill_runs(TRAIN, 1, seed=3, progress=lambda count: None)
    assert (kills.tried, kills.survived, kills.failures) == (1, 1, [])


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_run_killed_again_and_again_while_it_writes_resumes_to_the_same_bits(data, out, untouched, function):
    for number in range(5):  # each start gets one call further
        resume = ["--resume"] if snapshots(out) else []
        deadly = command(data, out, "--snapshot-every", 3, *resume)
        done = run_forked(deadly, before=lambda number=number: at_call(os, function, number, die))
        assert done.returncode == -signal.SIGKILL
    finish(data, out)
    assert results(out) == untouched
    assert not list(out.glob(".part-*"))


def test_run_killed_after_its_last_step_still_writes_its_model(data, finished, untouched):
    (finished / "model.npz").unlink()
    finish(data, finished)
    assert results(finished) == untouched


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_stopped_run_prints_the_command_that_continues_to_the_same_bits(data, out, untouched, name, status):
    done = run_forked(command(data, out), before=signalled(getattr(signal, name)))
    assert (done.returncode, complaints(done.stderr)) == (status, "")
    *_, said, continuation = done.stdout.splitlines()
    assert said == f"stopped by {name} after iteration 12; a snapshot is written; to go on:"
    assert snapshots(out) == [8, 12]
    assert not (out / "model.npz").exists()
    continuation = shlex.split(continuation)
    assert Path(continuation[0]).is_absolute()  # whatever the PATH is
    # One of them in a shell of its own, which has no PATH at all.
    again = run(continuation, env={"HOME": "/"}) if name == "SIGTERM" else run_forked(continuation)
    assert (again.returncode, complaints(again.stderr)) == (0, "")
    assert results(out) == untouched


def test_signal_that_comes_too_late_for_a_step_s_snapshot_stops_the_run_after_the_next(data, out):
    """So that "a snapshot is written" is true."""

    def before() -> None:
        genuine = Snapshots.__call__

        def saved(self, trainer) -> None:
            genuine(self, trainer)
            if trainer.updater.iteration == STEPS:
                os.kill(os.getpid(), signal.SIGTERM)

        Snapshots.__call__ = saved

    done = run_forked(command(data, out), before=before)
    assert done.returncode == 143
    assert f"after iteration {STEPS + 1}; a snapshot is written" in done.stdout
    assert snapshots(out) == [STEPS, STEPS + 1]


def test_closed_terminal_stops_the_run_after_a_snapshot(data, out, untouched):
    ours, theirs = os.openpty()

    def before() -> None:
        import fcntl
        import termios

        os.close(ours)
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        for number in (0, 1, 2):
            os.dup2(theirs, number)
        os.close(theirs)
        at_call(Updater, "update_core", 11, wait_until_closed)

    def wait_until_closed() -> None:
        (out / "now").touch()
        while os.isatty(0):
            time.sleep(0.002)

    child = fork(command(data, out), before=before)
    os.close(theirs)
    wait_for(out / "now", child)
    os.close(ours)
    assert child.wait().returncode == 128 + signal.SIGHUP
    assert snapshots(out) == [8, 12]
    finish(data, out)
    assert results(out) == untouched


def test_tuned_run_stopped_in_mid_epoch_resumes_to_the_same_bits(data, tmp_path, untouched):
    run_here(data, tmp_path / "tuned", recipe="tuned")
    tuned = command(data, tmp_path / "out", "--recipe", "tuned")
    assert run_forked(tuned, before=signalled(signal.SIGTERM)).returncode == 143
    finish(data, tmp_path / "out", "--recipe", "tuned")
    assert results(tmp_path / "out") == results(tmp_path / "tuned")
    assert results(tmp_path / "out") != untouched


def test_run_resumed_with_another_recipe_is_refused(home, data, tmp_path):
    """Also for longer: what the tuned recipe does at each step depends on how many there will be."""
    article, tuned = home / "untouched", tmp_path / "tuned"
    run_here(data, tuned, recipe="tuned")
    for into, others in (
        (article, {"recipe": "tuned"}),
        (tuned, {}),
        (tuned, {"recipe": "tuned", "epoch": 4}),
    ):
        with pytest.raises(srmnist.UserError, match=r"^--recipe: "):
            run_here(data, tmp_path / "new", into, **others)


def test_second_signal_ends_a_run_at_once(data, out):
    """Also while it writes: the first is noted, the second kills."""

    def deed() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        (out / "first").touch()
        os.kill(os.getpid(), signal.SIGTERM)
        (out / "second").touch()

    done = run_forked(command(data, out), before=lambda: at_call(os, "fsync", 0, deed))
    assert done.returncode == 143
    assert (out / "first").exists()
    assert not (out / "second").exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP])
def test_ignored_signal_stays_ignored(data, out, untouched, signum):
    """A run under nohup, or in the background of a script."""

    def before() -> None:
        signal.signal(signum, signal.SIG_IGN)
        signalled(signum)()

    assert run_forked(command(data, out), before=before).returncode == 0
    assert results(out) == untouched


def test_only_the_last_two_snapshots_are_kept(home):
    assert snapshots(home / "untouched") == [16, 24]


@pytest.mark.parametrize("harm", ["truncated", "bit flipped", "empty", "text"])
def test_damaged_snapshot_is_named_and_the_one_before_it_used(data, finished, untouched, harm):
    newest = finished / "snapshot_iter_24.npz"
    good = newest.read_bytes()
    half = len(good) // 2
    damaged = {
        "truncated": good[:half],
        "bit flipped": good[:half] + bytes([good[half] ^ 4]) + good[half + 1 :],
        "empty": b"",
        "text": b"not a snapshot",
    }
    newest.write_bytes(damaged[harm])
    done = run_forked(command(data, finished, "--resume"))
    assert done.returncode == 0
    (line,) = complaints(done.stderr).splitlines()
    assert str(newest) in line
    assert results(finished) == untouched
    finish(data, finished)  # a snapshot of that name is whole again


def test_damaged_snapshot_asked_for_by_name_is_refused(data, out, tmp_path):
    (tmp_path / "mine.npz").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(srmnist.UserError, match=r"mine\.npz"):
        run_here(data, out, tmp_path / "mine.npz")
    assert not out.exists()


def test_no_readable_snapshot_is_refused(data, tmp_path):
    (tmp_path / "snapshot_iter_3.npz").write_bytes(b"damaged")
    with pytest.raises(srmnist.UserError, match=r"no snapshot in .* can be read"):
        run_here(data, tmp_path, tmp_path)
    assert list(tree(tmp_path)) == [tmp_path / "snapshot_iter_3.npz"]


def test_weights_and_snapshots_are_told_apart(data, home, out):
    with pytest.raises(srmnist.UserError, match=r"--resume: .*model\.npz: holds weights, not a snapshot"):
        run_here(data, out, home / "untouched" / "model.npz")
    with pytest.raises(srmnist.UserError, match=r"snapshot_iter_24\.npz: is a snapshot, not weights; take"):
        srmnist.load_weights(home / "untouched" / "snapshot_iter_24.npz", srmnist.CNNAE())


@pytest.mark.parametrize("flag", ["seed", "batchsize", "size", "data"])
def test_resume_with_another_setting_is_refused_by_its_name(data, finished, tmp_path, flag):
    small_data(tmp_path / "other", test=63)
    value = {"seed": 1, "batchsize": 32, "size": 9, "data": str(tmp_path / "other")}[flag]
    before = tree(finished)
    with pytest.raises(srmnist.UserError, match=f"^--{flag}: .*snapshot_iter_24"):
        run_here(data, finished, finished, **{flag: value})
    assert tree(finished) == before


def test_resume_with_more_epochs_equals_a_longer_run(data, out, untouched):
    run_here(data, out, epoch=2)
    run_here(data, out, out)
    assert results(out) == untouched
    with np.load(out / "model.npz") as model:
        assert np.isfinite(model["conv1/W"]).all()


def test_resume_with_fewer_epochs_than_made_is_refused(data, finished):
    before = tree(finished)
    with pytest.raises(srmnist.UserError, match="--epoch"):
        run_here(data, finished, finished, epoch=2)
    assert tree(finished) == before


def test_bare_resume_never_finds_the_snapshots_of_an_earlier_run(data, out, untouched):
    run_here(data, out, seed=5)
    model = (out / "model.npz").read_bytes()
    done = run_forked(command(data, out), before=lambda: at_call(os, "fsync", 0, die))
    assert done.returncode == -signal.SIGKILL
    kept = out / "snapshot_earlier_iter_24.npz"
    assert f"a run begins anew; until its first snapshot, the earlier run's is {kept}" in done.stderr
    assert kept.exists()  # not lost before there is something instead
    assert (out / "model.npz").read_bytes() == model
    line = refusal(run_forked(command(data, out, "--resume")))
    assert "no snapshot" in line
    assert line.endswith(f"to go on with an earlier run, give --resume {kept}")
    finish(data, out)
    assert results(out) == untouched
    assert not list(out.glob("snapshot_earlier*"))


def test_run_goes_on_in_another_directory_from_a_snapshot_given_by_name(home, data, tmp_path, untouched):
    run_here(data, tmp_path / "new", home / "untouched" / "snapshot_iter_16.npz")
    assert results(tmp_path / "new") == untouched


def test_snapshots_that_a_run_from_elsewhere_replaces_are_named(home, data, out, untouched):
    run_here(data, out, seed=5)
    done = run_forked(command(data, out, "--resume", home / "untouched" / "snapshot_iter_16.npz"))
    (line,) = complaints(done.stderr).splitlines()
    assert line.startswith(f"{out}: a run goes on from {home}")
    assert line.endswith(f"until its first snapshot, the earlier run's is {out}/snapshot_earlier_iter_24.npz")
    assert results(out) == untouched


def test_log_and_snapshots_need_no_pickle(home):
    json.loads((home / "untouched" / "log").read_text())
    for path in (home / "untouched").glob("*.npz"):
        with np.load(path, allow_pickle=False) as npz:
            assert not any(npz[name].dtype.hasobject for name in npz)
