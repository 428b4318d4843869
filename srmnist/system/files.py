"""Files on disk: written whole or not at all, read only if they are files, in a directory of one run."""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import methodcaller
from pathlib import Path
from typing import BinaryIO

from srmnist.system.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, where two runs into one directory are not kept apart
    fcntl = None  # type: ignore[assignment]


class FileError(UserError):
    """A file that is not what it should be."""


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that `path` is at any moment, a power cut included, the old file or the new.

    Parameters
    ----------
    path : Path
    write : callable
        Is given a binary file to write to.

    Raises
    ------
    UserError
        If there is no room or no permission; `path` is then what it was.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        write(file)


def write_all(out: Path, contents: Mapping[str, bytes], inputs: Iterable[Path] = ()) -> list[Path]:
    """Write files into a directory, which is made if it does not exist.

    Parameters
    ----------
    out : Path
    contents : mapping of str to bytes
        By the names of the files.
    inputs : iterable of Path
        Files that the results were made from, which are never overwritten.

    Returns
    -------
    list of Path
        Their names, in the order of `contents`.

    Raises
    ------
    UserError
        If a result has the name of an input, if the directory cannot be made, or as `write_whole` does.
    """
    _keep(inputs, [out / name for name in contents])
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: {out}: cannot write there: {error.strerror}") from error
    for name, content in contents.items():
        write_whole(out / name, methodcaller("write", content))
    return [out / name for name in contents]


def _keep(inputs: Iterable[Path], results: Sequence[Path]) -> None:
    """Refuse to overwrite an input, whatever name or link the result has for it."""
    for path in inputs:
        for result in results:
            if path.exists() and result.exists() and path.samefile(result):
                raise UserError(f"{result}: this file is an input; choose another --out")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; what has been written there takes the place of `path` at the end.

    Raises
    ------
    UserError
        As `write_whole` does.
    """
    temporary = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        yield temporary
        if temporary.exists():
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_temporaries(directory: Path) -> None:
    """Remove what a killed process has left of the files that it was writing."""
    for temporary in directory.glob(".part-*"):
        temporary.unlink(missing_ok=True)


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; a pipe or a device, which might never end, is refused.

    Raises
    ------
    FileError
        If there is no such file, or it cannot be read.
    """
    try:
        # O_NONBLOCK: the mere opening of a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileError(f"{path}: cannot be read: it is not a file")
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, limit: int) -> bytes:
    """Read a file of at most `limit` bytes.

    Raises
    ------
    FileError
        If it cannot be read, is empty or is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise FileError(f"{path}: {size:,} bytes; at most {limit:,} are accepted")
        try:
            data = file.read(limit)
        except OSError as error:
            raise FileError(f"{path}: cannot be read: {error.strerror}") from error
    if not data:
        raise FileError(f"{path}: is empty")
    return data


@contextmanager
def occupied(out: Path) -> Iterator[None]:
    """Make a directory, and hold it for this process alone; if the block fails, take away what was made.

    The lock is the kernel's (``flock`` on ``.lock``), so a dead process does not keep it.

    Raises
    ------
    UserError
        If the directory cannot be made or written to, or if another process holds it.
    """
    lock_file = out / ".lock"
    missing = [directory for directory in (out, *out.parents) if not directory.exists()]
    new_lock = not lock_file.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = _lock(lock_file)
    except BlockingIOError as error:
        raise UserError(
            f"--out: {out}: another run is writing there; wait for it or choose another"
        ) from error
    except OSError as error:
        _take_away(missing)
        raise UserError(f"--out: {out}: cannot write there: {error.strerror}") from error
    try:
        if not os.access(out, os.W_OK | os.X_OK):  # where an old lock could still be opened
            raise UserError(f"--out: {out}: cannot write there: {os.strerror(errno.EACCES)}")
        yield
    except BaseException:
        if new_lock:
            lock_file.unlink(missing_ok=True)
        _take_away(missing)
        raise
    finally:
        os.close(lock)


def _lock(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed the file in between; a lock on that would keep nobody out.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _take_away(directories: list[Path]) -> None:
    with suppress(OSError):  # what is no longer empty stays
        for directory in directories:
            directory.rmdir()


def _flush(path: Path) -> None:
    """Have a file's content, or a directory's names, reach the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot, and need not
        return
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
