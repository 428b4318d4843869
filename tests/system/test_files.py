"""Files are written whole, under any name, on any file system; and no message is untrue."""

import errno
import os
import signal
import stat
import sys
from pathlib import Path

import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from helpers.forks import needs_fork
from helpers.runs import command, run_here
from helpers.users import complaints, run
from srmnist.soak.small_runs import results
from srmnist.system.files import remove_temporaries, write_whole
from srmnist.system.locks import occupied

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs flock, symbolic links and forks")


def text(content: bytes):
    return lambda file: file.write(content)


def test_symbolic_link_stays_and_its_target_is_written(tmp_path):
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "model.npz", tmp_path / "model.npz"
    link.symlink_to(target)
    for content in (b"new", b"newer"):  # the target need not exist
        write_whole(link, text(content))
        assert link.is_symlink()
        assert target.read_bytes() == content
    assert {path.name for path in tmp_path.rglob("*")} == {"disk", "model.npz"}


@pytest.mark.parametrize("length", [240, 255])
def test_name_may_be_as_long_as_the_file_system_allows(tmp_path, length):
    path = tmp_path / ("n" * length)
    write_whole(path, text(b"content"))
    assert path.read_bytes() == b"content"
    with pytest.raises(srmnist.UserError, match="File name too long"):
        write_whole(tmp_path / ("n" * 256), text(b""))
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_not_replaced(tmp_path):
    """Not a device either: a root user's ``--out /dev/null`` must leave it there."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name in ("pipe", "directory"):
        with pytest.raises(srmnist.UserError, match=f"{name}: cannot be written: it is not a file"):
            write_whole(tmp_path / name, text(b"content"))
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "directory"}


def failing_fsync(monkeypatch, number: int) -> list[int]:
    """Let directories answer fsync as some file systems do."""
    calls = []
    genuine = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            calls.append(descriptor)
            raise OSError(number, os.strerror(number))
        genuine(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return calls


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES])
def test_directory_that_cannot_be_synced_loses_no_file(tmp_path, monkeypatch, number):
    calls = failing_fsync(monkeypatch, number)
    write_whole(tmp_path / "log", text(b"content"))
    assert calls
    assert (tmp_path / "log").read_bytes() == b"content"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_disk_that_fails_is_told(tmp_path, monkeypatch, number):
    failing_fsync(monkeypatch, number)
    with pytest.raises(srmnist.UserError, match=os.strerror(number)):
        write_whole(tmp_path / "log", text(b"content"))


def test_file_that_somebody_has_removed_meanwhile_is_not_called_written(tmp_path):
    def write(file) -> None:
        file.write(b"content")
        for temporary in tmp_path.glob(".part-*"):
            temporary.unlink()

    with pytest.raises(srmnist.UserError, match="log: cannot be written: No such file"):
        write_whole(tmp_path / "log", write)
    assert list(tmp_path.iterdir()) == []


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_only_what_dead_processes_left_is_removed(tmp_path):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:

        def hang(file) -> None:
            file.write(b"half a file")
            file.flush()
            os.write(writing, b".")
            signal.pause()

        try:
            write_whole(tmp_path / "log", hang)
        finally:
            os._exit(1)
    os.read(reading, 1)
    (temporary,) = tmp_path.glob(".part-*")
    remove_temporaries(tmp_path)
    assert temporary.read_bytes() == b"half a file"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert temporary.exists()
    remove_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == []


def failing_flock(monkeypatch, number: int) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_is_written_to_and_named_once(tmp_path, monkeypatch, capsys, number):
    failing_flock(monkeypatch, number)
    with occupied(tmp_path / "out"):
        write_whole(tmp_path / "out" / "log", text(b"content"))
    assert (tmp_path / "out" / "log").read_bytes() == b"content"
    assert capsys.readouterr().err == (
        f"{tmp_path}/out: the file system has no locks; start no second run there\n"
    )
    (tmp_path / ".part-1-ab").touch()  # perhaps somebody's who lives
    remove_temporaries(tmp_path)
    assert (tmp_path / ".part-1-ab").exists()


def test_lock_that_fails_otherwise_refuses_the_directory(tmp_path, monkeypatch):
    failing_flock(monkeypatch, errno.EIO)
    with pytest.raises(srmnist.UserError, match="cannot write there: Input/output error"), occupied(tmp_path):
        pass


def test_run_on_a_file_system_without_locks_ends_well(home, tmp_path):
    """As a user meets it: flock fails in the whole process, from its start on."""
    (tmp_path / "sitecustomize.py").write_text(
        "import errno, fcntl\n"
        "def flock(*args):\n"
        "    raise OSError(errno.ENOSYS, 'Function not implemented')\n"
        "fcntl.flock = flock\n"
    )
    out = tmp_path / "out"
    done = run(command(home / "data", out), env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0
    assert complaints(done.stderr) == f"{out}: the file system has no locks; start no second run there\n"
    assert results(out) == results(home / "untouched")
    names = done.stdout.splitlines()[-1].removeprefix("written: ").split()
    assert all(Path(name).is_file() for name in names)


def test_run_writes_its_model_through_a_link(home, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.npz").symlink_to(tmp_path / "elsewhere.npz")
    run_here(home / "data", tmp_path / "out")
    assert (tmp_path / "elsewhere.npz").read_bytes() == (home / "untouched" / "model.npz").read_bytes()
