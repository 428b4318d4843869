"""Compilation by Numba, kept on disk where that is possible."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from numba import config, njit

_ENGINE = Path(__file__).parent


def compiled(function: Callable) -> Callable:
    """Compile a function at its first call, to run without Python's lock; keep the result on disk.

    Where that cannot be written (no directory, a full disk), it is compiled anew in each process instead.
    """
    before = config.CACHE_DIR
    config.CACHE_DIR = _cache_directory(Path(before) if before else _ENGINE / "__pycache__")
    try:
        dispatcher = njit(nogil=True, cache=True)(function)
        dispatcher._cache = _HarmlessCache(dispatcher._cache)
        return dispatcher
    except RuntimeError:  # Numba: "cannot cache function …: no locator available"
        return njit(nogil=True)(function)
    finally:
        config.CACHE_DIR = before


class _HarmlessCache:
    """A dispatcher's cache on disk, whose failures to write are no failures of the program."""

    def __init__(self, cache) -> None:
        self._cache = cache

    def __getattr__(self, name: str):
        return getattr(self._cache, name)

    def save_overload(self, signature, data) -> None:
        with suppress(OSError):
            self._cache.save_overload(signature, data)


def _cache_directory(base: Path) -> str:
    """A directory for this very engine.

    Numba notices when a function's own file changes, not when a function that it calls does.
    """
    digest = hashlib.sha256()
    for source in sorted(_ENGINE.glob("*.py")):
        digest.update(source.read_bytes())
    return str(base / f"srmnist-{digest.hexdigest()[:16]}")
