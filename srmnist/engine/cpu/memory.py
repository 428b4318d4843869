"""Memory that the engine keeps from step to step: new memory would cost a page fault for each page."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from srmnist.engine.cpu.geometry import ceil_divide

_CACHE_LINE = 64  # bytes


class Pool:
    """Blocks of memory that are free to be used again.

    Single operations of a deque take a block from the pool and return it. No other thread, signal handler or
    destructor can interrupt them. So a block has one user at a time, without a lock, which a fork could leave
    locked.

    Parameters
    ----------
    keep : int
        The number of free blocks that are kept.
    """

    def __init__(self, keep: int) -> None:
        self._free: deque[np.ndarray] = deque(maxlen=keep)

    def take(self, size: int) -> np.ndarray:
        """Flat float32 memory of `size` elements with arbitrary values.

        The block returns to the pool when no array refers to it any more.
        """
        return np.asarray(_Loan(self._block(size), self._free))[:size]

    def arrays(self, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """Float32 arrays of these shapes, all in one block; each begins on a cache line."""
        ends = list(accumulate(_whole_lines(math.prod(shape)) for shape in shapes))
        flat = self.take(ends[-1])
        starts = [0, *ends[:-1]]
        return [
            flat[start : start + math.prod(shape)].reshape(shape)
            for start, shape in zip(starts, shapes, strict=True)
        ]

    def _block(self, size: int) -> np.ndarray:
        while self._free:
            try:
                block = self._free.pop()
            except IndexError:  # another thread has taken the last one
                break
            if len(block) >= size:
                return block
        return aligned(size)


class _Loan:
    """A block in use. NumPy keeps this object as the base of the block's array and of all views of it."""

    def __init__(self, block: np.ndarray, free: deque[np.ndarray]) -> None:
        self.__array_interface__ = block.__array_interface__
        self._block, self._free = block, free

    def __del__(self) -> None:
        self._free.append(self._block)


class _OwnScratch(threading.local):
    memory = np.empty(0, np.float32)


_own = _OwnScratch()


def scratch(size: int) -> np.ndarray:
    """Flat float32 scratch memory of `size` elements that belongs to the calling thread."""
    if len(_own.memory) != size:
        _own.memory = np.empty(0, np.float32)  # first: the old memory is free before the new is taken
        _own.memory = aligned(size)
    return _own.memory


def _whole_lines(size: int) -> int:
    """A number of floats, rounded up to whole cache lines."""
    return ceil_divide(4 * size, _CACHE_LINE) * _CACHE_LINE // 4


def aligned(size: int) -> np.ndarray:
    """Float32 zeros that begin on a cache line, so that no vector lies on two."""
    memory = np.zeros(4 * size + _CACHE_LINE, np.uint8)
    skip = -memory.ctypes.data % _CACHE_LINE
    return memory[skip : skip + 4 * size].view(np.float32)
