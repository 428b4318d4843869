"""Out of room: the run names the file that could not be written, and keeps the last good snapshot."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from srmnist.soak.small_runs import finish, results, small_data, train_command
from helpers.users import TRAIN, refusal, run, tree


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    small_data(home / "data")
    finish(train_command(TRAIN, home / "data", "--epoch", 2), home / "untouched")
    return home


@pytest.fixture
def command(home):
    return train_command(TRAIN, home / "data", "--epoch", 2)


@pytest.fixture
def mounted(tmp_path):
    """Mount a tmpfs of a size, and take it away again."""
    mounts = []

    def mount(options: str) -> Path:
        directory = tmp_path / "disk"
        directory.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", directory], capture_output=True)
        if done.returncode != 0:
            pytest.skip(f"this test may not mount a tmpfs: {done.stderr.decode().strip()}")
        mounts.append(directory)
        return directory

    yield mount
    for directory in mounts:
        subprocess.run(["umount", directory], check=True)


def test_full_disk_is_named_and_the_last_snapshot_stays_good(command, home, mounted):
    disk = mounted("size=640k")
    out = disk / "out"
    line = refusal(run([*command, "--out", str(out)]))
    assert line.startswith(f"{out}/")
    assert line.endswith("No space left on device")
    assert (out / "snapshot_iter_8.npz").exists()
    assert not list(out.glob(".part-*"))
    subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
    finish(command, out)
    assert results(out) == results(home / "untouched")


def test_full_disk_at_the_first_snapshot_keeps_the_earlier_run_s(command, home, mounted):
    disk = mounted("size=2m")
    out = disk / "out"
    finish(command, out)
    with open(disk / "others", "wb", buffering=0) as file:
        while os.statvfs(disk).f_bavail > 20:
            file.write(bytes(4096))
    done = run([*command, "--seed", "1", "--out", str(out)])
    assert done.returncode == 2
    assert "No space left on device" in done.stderr.splitlines()[-1]
    earlier = out / "snapshot_earlier_iter_16.npz"
    assert earlier.exists()
    (disk / "others").unlink()
    done = run([*command, "--out", str(out), "--resume", str(earlier)])
    assert done.returncode == 0
    assert results(out) == results(home / "untouched")


@pytest.mark.parametrize(
    ("limit", "name"), [(200_000, "snapshot_iter_8.npz"), (10_000, "loss.png"), (100, "log")]
)
def test_file_size_limit_is_named(command, tmp_path, limit, name):
    out = tmp_path / "out"
    limited = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # noqa: E731
    line = refusal(run([*command, "--out", str(out)], preexec_fn=limited))
    assert line.startswith(f"{out / name}: cannot be written")
    assert not (out / name).exists()
    assert not list(out.glob(".part-*"))


def test_read_only_directory_is_named_before_any_work(command, mounted):
    disk = mounted("size=1m")
    (disk / "out").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for out in (disk / "out", disk / "new" / "out"):
        line = refusal(run([*command, "--out", str(out)]))
        assert str(out) in line
        assert "Read-only file system" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_directory_without_permission_is_named(command, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    assert "Permission denied" in refusal(run([*command, "--out", str(tmp_path / "out")]))


def test_output_to_a_full_device_is_one_line_too(command, tmp_path):
    with open("/dev/full", "w") as full:
        streams = {"capture_output": False, "stdout": full, "stderr": subprocess.PIPE}
        done = run([*command, "--out", str(tmp_path / "out")], **streams)
    assert refusal(done) == "standard output: No space left on device"


def test_refused_run_leaves_earlier_results_alone(command, home, tmp_path):
    before = tree(home)
    for flags in (["--size", "99"], ["--resume", str(tmp_path / "absent.npz")], ["--data", str(tmp_path)]):
        refusal(run([*command, "--out", str(home / "untouched"), *flags]))
    assert tree(home) == before


def test_memory_is_flat_from_the_second_epoch_on(home, tmp_path):
    code = """
import os, sys
from pathlib import Path
import srmnist
from chainer import training
from srmnist.training import train as srmnist_training
from srmnist.training.settings import Settings

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

sizes = []
build = srmnist_training.build_trainer
def with_scales(*args):
    trainer = build(*args)
    trainer.extend(lambda trainer: sizes.append(resident()), name="scales", trigger=(1, "epoch"))
    return trainer
srmnist_training.build_trainer = with_scales
settings = Settings(epoch=6, batchsize=16, data=sys.argv[1])
srmnist_training.train(settings, Path(sys.argv[2]))
print((sizes[-1] - sizes[1]) >> 20)
"""
    done = run([sys.executable, "-c", code, str(home / "data"), str(tmp_path / "out")])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 12  # MiB, in four epochs
