"""Compilation by Numba. The machine code is kept on disk where that is possible."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from llvmlite import binding
from numba import config, njit
from numba.core.compiler_lock import global_compiler_lock
from numba.misc.appdirs import user_cache_dir

if config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT switches its compiler off")

_ENGINE = Path(__file__).parent

# With NumPy's error model a division by zero gives infinity or NaN. Python's would raise an error, and the
# test for it would keep loops from being vectorised.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def compiled(function: Callable) -> Callable:
    """Compile a function at its first call and keep the machine code on disk; it needs no global lock.

    A damaged file is replaced. If nothing can be written, each process compiles again. If stderr is a
    terminal, a line there says that the compilation takes a while, or why its result cannot be kept.
    """
    directory, problem = _directory()
    if directory is None:
        dispatcher = njit(**_OPTIONS)(function)
    else:
        before, config.CACHE_DIR = config.CACHE_DIR, str(directory)
        try:
            dispatcher = njit(**_OPTIONS, cache=True)(function)
        finally:
            config.CACHE_DIR = before
    dispatcher._cache = _Cache(dispatcher._cache, problem)
    return dispatcher


class _Cache:
    """A function's cache on disk; its errors do not stop the program."""

    def __init__(self, cache: Any, problem: str) -> None:
        self._cache, self._problem = cache, problem

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The machine code for a signature; None if it must be compiled."""
        try:
            found = self._cache.load_overload(signature, context)
        except Exception:  # a damaged file makes unpickling raise almost anything
            found = None
            with suppress(OSError):
                self._cache.flush()
        if found is None:
            often = f"at each start, about 25 s: {self._problem}" if self._problem else "once, about 25 s"
            _say(f"compiling the engine for this processor, {often}")
        return found

    def save_overload(self, signature: Any, machine_code: Any) -> None:
        """Keep the machine code for a signature, if the disk allows it."""
        try:
            self._cache.save_overload(signature, machine_code)
        except OSError as error:
            _say(f"the compiled engine cannot be kept, the next start compiles again: {error}")


@cache
def _say(line: str) -> None:
    """Write a line on stderr, once, if stderr is an open terminal."""
    with suppress(AttributeError, OSError, ValueError):  # there is no stderr, or it is closed
        if sys.stderr.isatty():
            sys.stderr.write(f"srmnist: {line}\n")
            sys.stderr.flush()


@cache
def _directory() -> tuple[Path | None, str]:
    """A directory for the machine code; or None, and why there is none.

    It is NUMBA_CACHE_DIR if that is set, else beside the package, else in the user's cache.
    """
    kept_by_user = Path(user_cache_dir("srmnist", appauthor=False))
    bases = [Path(config.CACHE_DIR)] if config.CACHE_DIR else [_ENGINE / "__pycache__", kept_by_user]
    problem = ""
    for base in bases:
        directory = base / f"srmnist-{_fingerprint()}"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=directory).close()
            return directory, ""
        except OSError as error:
            problem = (
                f"cannot write in {base} ({error.strerror}); NUMBA_CACHE_DIR may name a folder to write in"
            )
    return None, problem


def _fingerprint() -> str:
    """A name for this engine on this processor.

    Numba notices when a function's own file has changed, but not when a function that it calls has. Two
    processes that compile for different processors at once would overwrite each other's machine code.
    """
    digest = hashlib.sha256(repr((*processor(), str(config.OPT))).encode())
    for source in sorted(_ENGINE.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def processor() -> tuple[str, str]:
    """Name and features of the processor that Numba compiles for, in LLVM's words."""
    features = config.CPU_FEATURES
    if features is None:
        features = binding.get_host_cpu_features().flatten()
    return config.CPU_NAME or binding.get_host_cpu_name(), features


# A fork waits until no thread compiles: the child could never get a lock that such a thread holds.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )
