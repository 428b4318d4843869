"""Compilation by Numba, kept on disk where that is possible."""

from collections.abc import Callable

from numba import njit


def compiled(function: Callable) -> Callable:
    """Compile a function at its first call, to run without Python's lock; keep the result on disk.

    Where no directory for that can be written (neither beside the source nor in the user's cache), it is
    compiled anew in each process instead.
    """
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # Numba: "cannot cache function …: no locator available"
        return njit(nogil=True)(function)
