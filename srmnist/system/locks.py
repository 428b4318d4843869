"""Locks on files. The kernel releases a lock when its process ends, also when the process is killed.

The package filelock cannot be used: on a file system without locks its newer versions create a marker file
instead, and the marker of a killed run would stop the run that resumes it.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from srmnist.system.errors import UserError

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


# Errors of file systems without locks: Lustre, some NFS and FUSE.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


def open_locked(path: Path) -> tuple[int, bool]:
    """Open a file, which is made if it does not exist, and lock it.

    Returns
    -------
    descriptor : int
        The open file; closing it releases the lock.
    locked : bool
        False where the file system has no locks.

    Raises
    ------
    BlockingIOError
        If another process holds the lock.
    OSError
        If the file cannot be opened for writing.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            locked = _try_lock(descriptor)
            # The process that held the lock may have removed the file; another would then lock a new file.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor, locked
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Lock an open file; return False if the file system has no locks."""
    try:
        _lock(descriptor)
    except PermissionError as error:  # on Windows: another process holds the lock
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


@contextmanager
def occupied(out: Path) -> Iterator[None]:
    """Make a directory and lock it for one run; if the block fails, remove what this function has made.

    The lock is on the file ``.lock``. Where the file system has no locks, the run goes on without one and
    says so on stderr.

    Raises
    ------
    UserError
        If the directory cannot be made or written to, or if another run holds it.
    """
    lock_file = out / ".lock"
    missing = [directory for directory in (out, *out.parents) if not directory.exists()]
    new_lock = not lock_file.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor, locked = open_locked(lock_file)
    except BlockingIOError as error:
        raise UserError(
            f"--out: {out}: another run is writing there; wait for it or choose another"
        ) from error
    except OSError as error:
        _remove_empty(missing)
        raise UserError(f"--out: {out}: cannot write there: {error.strerror}") from error
    try:
        if not os.access(out, os.W_OK | os.X_OK):  # where an old lock could still be opened
            raise UserError(f"--out: {out}: cannot write there: {os.strerror(errno.EACCES)}")
        if not locked:
            print(f"{out}: the file system has no locks; start no second run there", file=sys.stderr)
        yield
    except BaseException:
        if new_lock:
            with suppress(OSError):
                lock_file.unlink()
        _remove_empty(missing)
        raise
    finally:
        os.close(descriptor)


def _remove_empty(directories: list[Path]) -> None:
    with suppress(OSError):  # a directory that is no longer empty stays
        for directory in directories:
            directory.rmdir()
