"""Out of room: the run names the file that could not be written, and keeps the last good snapshot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import srmnist
from helpers.forks import needs_fork, run_forked
from helpers.runs import command, finish, run_here, settings
from helpers.users import complaints, refusal, run, tree
from srmnist.soak.small_runs import results
from srmnist.training.train import train

pytestmark = needs_fork


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


def test_full_disk_is_named_and_the_last_snapshot_stays_good(home, data, mounted):
    disk = mounted("size=640k")
    out = disk / "out"
    line = refusal(run_forked(command(data, out)))
    assert line.startswith(f"{out}/")
    assert line.endswith("No space left on device")
    assert (out / "snapshot_iter_8.npz").exists()
    assert not list(out.glob(".part-*"))
    subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
    finish(data, out)
    assert results(out) == results(home / "untouched")


def test_full_disk_at_the_first_snapshot_keeps_the_earlier_run_s(home, data, mounted):
    disk = mounted("size=2m")
    out = disk / "out"
    run_here(data, out)
    with open(disk / "others", "wb", buffering=0) as file:
        while os.statvfs(disk).f_bavail > 20:
            file.write(bytes(4096))
    done = run_forked(command(data, out, "--seed", "1"))
    assert done.returncode == 2
    assert "No space left on device" in complaints(done.stderr).splitlines()[-1]
    earlier = out / "snapshot_earlier_iter_24.npz"
    assert earlier.exists()
    (disk / "others").unlink()
    run_here(data, out, earlier)
    assert results(out) == results(home / "untouched")


@pytest.mark.parametrize(
    ("limit", "name"), [(200_000, "snapshot_iter_8.npz"), (10_000, "loss.png"), (100, "log")]
)
def test_file_size_limit_is_named(data, tmp_path, limit, name):
    import resource

    out = tmp_path / "out"
    limited = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # noqa: E731
    # A process with pipes: the limit would cut what a fork says into a file.
    line = refusal(run(command(data, out), preexec_fn=limited))
    assert line.startswith(f"{out / name}: cannot be written")
    assert not (out / name).exists()
    assert not list(out.glob(".part-*"))


def test_read_only_directory_is_named_before_any_work(data, mounted):
    disk = mounted("size=1m")
    (disk / "out").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for out in (disk / "out", disk / "new" / "out"):
        with pytest.raises(srmnist.UserError, match=f"{out}.*Read-only file system"):
            run_here(data, out)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_directory_without_permission_is_named(data, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(srmnist.UserError, match="Permission denied"):
        run_here(data, tmp_path / "out")


def test_output_to_a_full_device_is_one_line_too(data, tmp_path):
    with open("/dev/full", "w") as full:
        streams = {"capture_output": False, "stdout": full, "stderr": subprocess.PIPE}
        done = run(command(data, tmp_path / "out"), **streams)
    assert refusal(done) == "standard output: No space left on device"


def test_refused_run_leaves_earlier_results_alone(home, data, tmp_path):
    before = tree(home)
    absent = tmp_path / "absent.npz"
    for resume, others in ((None, {"size": 29}), (absent, {}), (None, {"data": str(tmp_path)})):
        with pytest.raises(srmnist.UserError):
            run_here(data, home / "untouched", resume, **others)
    assert tree(home) == before


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_is_flat_from_the_second_epoch_on(data, tmp_path):
    sizes = []

    def measure(progress) -> None:
        if progress.is_new_epoch:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            sizes.append(pages * os.sysconf("SC_PAGESIZE"))

    train(settings(data, epoch=6), tmp_path / "out", follow=measure)
    assert len(sizes) == 6
    assert sizes[-1] - sizes[1] < 12 << 20  # in four epochs
