"""A run that is stopped at any moment goes on to the bits of one that was never touched."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from srmnist.soak.small_runs import finish, results, small_data, train_command
from helpers.users import complaints, SCRIPTS, TRAIN, refusal, run, sabotage, start, tree, wait_for


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with data and a run of three epochs that nothing has touched."""
    home = tmp_path_factory.mktemp("home")
    small_data(home / "data")
    finish(train_command(TRAIN, home / "data", "--epoch", 3), home / "untouched")
    return home


@pytest.fixture
def command(home):
    """Three epochs of eight steps, with a snapshot every third."""
    return train_command(TRAIN, home / "data", "--epoch", 3, "--snapshot-every", 3)


def into(out: Path) -> list[str]:
    return ["--out", str(out)]


def snapshots(out: Path) -> list[int]:
    return sorted(int(re.search(r"\d+", path.name)[0]) for path in out.glob("snapshot_iter_*.npz"))


def stopped_run(command: list[str], out: Path, signum: int) -> subprocess.CompletedProcess:
    """Start a run and send it a signal between two snapshots."""
    process = start(sabotage([*command, *into(out)], "replace", 3, f"os.kill(os.getpid(), {signum:d})"))
    stdout, stderr = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, stdout, complaints(stderr))


def test_runs_killed_at_twenty_random_moments_resume_to_the_same_bits():
    done = run([sys.executable, str(SCRIPTS / "soak.py"), "--kills", "20", "--mutations", "0", "--seed", "7"])
    assert done.returncode == 0, done.stdout
    assert re.search(r"kills: 20 \(.*survived with the same bits: 20\n", done.stdout)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_run_killed_again_and_again_while_it_writes_resumes_to_the_same_bits(
    command, home, tmp_path, function
):
    out = tmp_path / "out"
    for number in range(5):  # each start gets one step further into what it writes
        resume = ["--resume"] if snapshots(out) else []
        deadly = sabotage([*command, *into(out), *resume], function, number, "os.kill(os.getpid(), 9)")
        assert run(deadly).returncode == -signal.SIGKILL
    finish(command, out)
    assert results(out) == results(home / "untouched")
    assert not list(out.glob(".part-*"))


def test_run_killed_after_its_last_step_still_writes_its_model(command, home, tmp_path):
    out = tmp_path / "out"
    finish(command, out)
    (out / "model.npz").unlink()
    finish(command, out)
    assert results(out) == results(home / "untouched")


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_stopped_run_prints_the_command_that_continues_to_the_same_bits(home, tmp_path, name, status):
    out = tmp_path / "out"
    command = [*train_command(TRAIN, home / "data", "--epoch", 3), *into(out)]
    process = start(command)
    wait_for(out / "log", process)
    time.sleep(0.15)  # past the snapshot of the first epoch, into the second
    process.send_signal(getattr(signal, name))
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, complaints(stderr)) == (status, "")
    assert name in stdout
    assert not (out / "model.npz").exists()
    continuation = shlex.split(stdout.splitlines()[-1])
    done = run(continuation)
    assert done.returncode == 0, done.stderr
    assert results(out) == results(home / "untouched")


def test_interrupted_run_resumes_in_mid_epoch(command, home, tmp_path):
    out = tmp_path / "out"
    done = stopped_run(command, out, signal.SIGTERM)
    assert done.returncode == 143
    assert snapshots(out)[-1] % 8 != 0
    finish(command, out)
    assert results(out) == results(home / "untouched")


def test_tuned_run_stopped_in_mid_epoch_resumes_to_the_same_bits(command, home, tmp_path):
    tuned = [*command, "--recipe", "tuned"]
    finish(tuned, tmp_path / "untouched")
    assert stopped_run(tuned, tmp_path / "out", signal.SIGTERM).returncode == 143
    finish(tuned, tmp_path / "out")
    assert results(tmp_path / "out") == results(tmp_path / "untouched")
    assert results(tmp_path / "out") != results(home / "untouched")


def test_run_resumed_with_another_recipe_is_refused(command, home, tmp_path):
    """Also for longer: what the tuned recipe does at each step depends on how many there will be."""
    article, tuned = tmp_path / "article", tmp_path / "tuned"
    finish(command, article)
    finish([*command, "--recipe", "tuned"], tuned)
    for changed in (
        [*command, "--recipe", "tuned", *into(article)],
        [*command, *into(tuned)],
        [*command, "--recipe", "tuned", "--epoch", "4", *into(tuned)],
    ):
        assert refusal(run([*changed, "--resume"])).startswith("--recipe: ")


def test_second_signal_ends_a_run_at_once(command, tmp_path):
    out = tmp_path / "out"
    slow = sabotage([*command, *into(out)], "fsync", 0, "open('writing', 'w'); time.sleep(60)")
    process = subprocess.Popen(slow, cwd=tmp_path, stdout=subprocess.PIPE)
    wait_for(tmp_path / "writing", process)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert time.monotonic() - began < 2


def test_ignored_interrupt_stays_ignored(command, tmp_path):
    quiet = [*command[:-2], "--epoch", "1", *into(tmp_path / "out")]
    deed = "os.kill(os.getpid(), signal.SIGINT)"
    process = subprocess.Popen(
        sabotage(quiet, "replace", 0, deed),
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    process.communicate(timeout=120)
    assert process.returncode == 0


def test_only_the_last_two_snapshots_are_kept(home):
    assert snapshots(home / "untouched") == [16, 24]


@pytest.mark.parametrize("harm", ["truncated", "bit flipped", "empty", "text"])
def test_damaged_snapshot_is_named_and_the_one_before_it_used(command, home, tmp_path, harm):
    out = tmp_path / "out"
    shutil.copytree(home / "untouched", out)
    newest = out / "snapshot_iter_24.npz"
    good = newest.read_bytes()
    flipped = bytes([good[len(good) // 2] ^ 4])
    newest.write_bytes({
        "truncated": good[: len(good) // 2],
        "bit flipped": good[: len(good) // 2] + flipped + good[len(good) // 2 + 1 :],
        "empty": b"",
        "text": b"not a snapshot",
    }[harm])  # fmt: skip
    done = run([*command, *into(out), "--resume"])
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert str(newest) in line
    assert results(out) == results(home / "untouched")
    assert newest.read_bytes() != good[: len(good) // 2]  # the next bare --resume finds it whole
    assert run([*command, *into(out), "--resume"]).stderr == ""


def test_damaged_snapshot_asked_for_by_name_is_refused(command, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.npz").write_bytes(b"PK\x03\x04 and nothing more")
    before = tree(tmp_path)
    assert "mine.npz" in refusal(run([*command, *into(out), "--resume", str(out / "mine.npz")]))
    assert tree(tmp_path) == before


def test_no_readable_snapshot_is_refused(command, tmp_path):
    (tmp_path / "snapshot_iter_3.npz").write_bytes(b"damaged")
    done = run([*command, *into(tmp_path), "--resume"])
    assert done.returncode == 2
    assert "no snapshot" in done.stderr.splitlines()[-1]
    assert list(tree(tmp_path)) == [tmp_path / "snapshot_iter_3.npz"]


@pytest.mark.parametrize(
    "flags", [("--seed", "1"), ("--batchsize", "32"), ("--size", "9"), ("--data", "other")], ids=" ".join
)
def test_resume_with_another_setting_is_refused_by_its_name(command, home, tmp_path, flags):
    if not (home / "other").exists():
        small_data(home / "other", test=63)
    out = home / "untouched"
    before = tree(out)
    flags = [str(home / flag) if flag == "other" else flag for flag in flags]
    done = run([*command, *flags, *into(out), "--resume"])
    assert flags[0] in refusal(done)
    assert tree(out) == before


def test_resume_with_more_epochs_equals_a_longer_run(home, tmp_path):
    short, long = (train_command(TRAIN, home / "data", "--epoch", epoch) for epoch in (2, 3))
    finish(short, tmp_path / "out")
    finish(long, tmp_path / "out")
    assert results(tmp_path / "out") == results(home / "untouched")
    with np.load(tmp_path / "out" / "model.npz") as model:
        assert np.isfinite(model["conv1/W"]).all()


def test_resume_with_fewer_epochs_than_made_is_refused(home):
    command = train_command(TRAIN, home / "data", "--epoch", 2)
    before = tree(home)
    assert "--epoch" in refusal(run([*command, *into(home / "untouched"), "--resume"]))
    assert tree(home) == before


def test_bare_resume_never_finds_the_snapshots_of_an_earlier_run(command, home, tmp_path):
    out = tmp_path / "out"
    finish(train_command(TRAIN, home / "data", "--epoch", 3, "--seed", 5), out)
    model = (out / "model.npz").read_bytes()
    begun = sabotage([*command, *into(out)], "fsync", 0, "os.kill(os.getpid(), 9)")
    done = run(begun)
    assert done.returncode == -signal.SIGKILL
    assert "snapshot_earlier_iter_24.npz" in done.stderr
    assert (out / "snapshot_earlier_iter_24.npz").exists()  # not lost before there is something instead
    assert (out / "model.npz").read_bytes() == model
    assert "no snapshot" in refusal(run([*command, *into(out), "--resume"]))
    finish(command, out)
    assert results(out) == results(home / "untouched")
    assert not list(out.glob("snapshot_earlier*"))


def test_run_goes_on_in_another_directory_from_a_snapshot_given_by_name(home, tmp_path):
    command = train_command(TRAIN, home / "data", "--epoch", 3)
    source = home / "untouched" / "snapshot_iter_16.npz"
    done = run([*command, *into(tmp_path / "new"), "--resume", str(source)])
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "new") == results(home / "untouched")


def test_log_and_snapshots_need_no_pickle(home):
    json.loads((home / "untouched" / "log").read_text())
    for path in (home / "untouched").glob("*.npz"):
        with np.load(path, allow_pickle=False) as npz:
            assert not any(npz[name].dtype.hasobject for name in npz)
