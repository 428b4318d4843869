"""Scripts run in forks of this process: real processes, without the seconds that imports take."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
_PATIENCE = 120.0  # seconds until a child that hangs fails its test


class Child:
    """A child process that runs a script."""

    def __init__(self, pid: int, command: list[str], stdout: int, stderr: int) -> None:
        self.pid = pid
        self._command = command
        self._streams = stdout, stderr
        self._done: subprocess.CompletedProcess | None = None

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        if self._done is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid == 0:
                return None
            texts = [_read(stream) for stream in self._streams]
            self._done = subprocess.CompletedProcess(self._command, os.waitstatus_to_exitcode(status), *texts)
        return self._done.returncode

    def wait(self) -> subprocess.CompletedProcess:
        """Wait for the end of the child; return its status and its output."""
        deadline = time.monotonic() + _PATIENCE
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{self._command} has not ended")
            time.sleep(0.002)
        assert self._done is not None
        return self._done

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def fork(command: list[str], cwd: Path | None = None, before: Callable[[], object] = lambda: None) -> Child:
    """Start a script in a child of this process.

    Parameters
    ----------
    command : list of str
        Python, the script and its arguments, as `sys.orig_argv` would have them.
    cwd : Path, optional
    before : callable
        Is called in the child before the script: it may set limits, or replace functions.
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        descriptors = [os.dup(stream.fileno()) for stream in (stdout, stderr)]
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pytest's process may have threads
        pid = os.fork()
    if pid == 0:
        _become(command, cwd, descriptors, before)
    return Child(pid, command, *descriptors)


def run_forked(
    command: list[str], cwd: Path | None = None, before: Callable[[], object] = lambda: None
) -> subprocess.CompletedProcess:
    """Run a script in a child of this process to its end."""
    return fork(command, cwd, before).wait()


def _become(
    command: list[str], cwd: Path | None, streams: list[int], before: Callable[[], object]
) -> NoReturn:
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, descriptor in enumerate(streams, 1):
            os.dup2(descriptor, number)
        for signum in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if cwd is not None:
            os.chdir(cwd)
        sys.orig_argv, sys.argv = command, command[1:]
        before()
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        runpy.run_path(command[1], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


def _read(descriptor: int) -> str:
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read().decode()


def at_call(module: object, name: str, number: int, deed: Callable[[], object]) -> None:
    """Call `deed` just before the N-th call of a function; the first call is number 0."""
    genuine = getattr(module, name)
    calls = iter(range(number + 1))

    def called(*args, **kwds):
        if next(calls, None) == number:
            deed()
        return genuine(*args, **kwds)

    setattr(module, name, called)


def die() -> NoReturn:
    """End this process at once, as ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")
