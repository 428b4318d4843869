"""Files on disk: written whole or not at all, and read only if they are regular files."""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from io import BufferedReader
from operator import methodcaller
from pathlib import Path
from typing import BinaryIO

from srmnist.system.errors import UserError
from srmnist.system.locks import open_locked

# With any other error the directory cannot be synced at all, but the file in it is whole: EINVAL and similar
# errors on CIFS, DrvFs and VirtualBox's folders; no permission to read the directory; Windows.
_DISK_FAULTS = {errno.EIO, errno.ENOSPC, errno.EDQUOT}


class FileError(UserError):
    """A file that is not what it should be."""


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file whole: at any moment `path` is the old or the new file, also after a power failure.

    Parameters
    ----------
    path : Path
        If it is a symbolic link, the file that it points to is written.
    write : callable
        Is given a binary file to write to.

    Raises
    ------
    UserError
        If there is no room or no permission, or if `path` is a directory, a pipe or a device. `path` is then
        unchanged.
    """
    try:
        _replace(Path(os.path.realpath(path)), write)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    if path.exists() and not path.is_file():  # root could replace /dev/null
        raise OSError("it is not a file")
    # A short name: `path` may have the longest name that the file system allows.
    temporary = path.with_name(f".part-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        # The lock tells `remove_temporaries` that this process is alive.
        descriptor, _ = open_locked(temporary)
        with open(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if os.name != "nt":
                os.replace(temporary, path)
        if os.name == "nt":  # Windows renames closed files only
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Write a directory's list of names to the disk, if the file system can sync directories."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _DISK_FAULTS:
            raise


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
        The files, in the order of `contents`.

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


def remove_temporaries(directory: Path) -> None:
    """Remove the temporary files that killed processes have left; those of living processes are locked."""
    for temporary in directory.glob(".part-*"):
        with suppress(OSError):
            descriptor, locked = open_locked(temporary)
            try:
                if locked:
                    temporary.unlink()
            finally:
                os.close(descriptor)


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading. A pipe or a device is refused, because it might never end.

    Raises
    ------
    FileError
        If there is no such file, or if it cannot be read.
    """
    try:
        # O_NONBLOCK: opening a pipe would wait for its writer.
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
        If the file cannot be read, is empty or is larger.
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
