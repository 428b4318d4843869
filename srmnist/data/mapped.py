"""A file as memory: it is read where and when it is used, and all processes of a computer share it."""

import mmap
import os
import weakref
from pathlib import Path

from srmnist.system.errors import UserError


class MappedFile:
    """A read-only memory map of a file.

    If somebody makes the file shorter, the system kills every process that then uses the missing part
    (SIGBUS). `require_intact` finds that before.

    Parameters
    ----------
    path : Path
        For messages.
    descriptor : int
        The open file; the caller may close it afterwards.

    Attributes
    ----------
    memory : mmap
        The content.

    Raises
    ------
    OSError, ValueError
        If the file cannot be mapped: some file systems cannot do it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        self._path = path
        self._descriptor = os.dup(descriptor)
        weakref.finalize(self, os.close, self._descriptor)
        self._state = self._size_and_time()

    def require_intact(self) -> None:
        """Refuse a file that has become shorter or has been written since it was mapped.

        Raises
        ------
        UserError
        """
        try:
            intact = self._size_and_time() == self._state
        except OSError as error:  # the file is on another computer
            raise UserError(f"{self._path}: can no longer be read: {error.strerror}") from error
        if not intact:
            raise UserError(
                f"{self._path}: has changed while it was in use; make it what it was, and start again"
            )

    def _size_and_time(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns
