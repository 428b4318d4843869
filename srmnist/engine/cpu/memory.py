"""Memory that the engine keeps: fresh pages would cost a fault each at every step."""

from __future__ import annotations

import math
import threading

import numpy as np

from srmnist.engine.cpu import passes
from srmnist.engine.cpu.passes import C1, C2, C3
from srmnist.engine.cpu.threads import thread_count
from srmnist.engine.cpu.winograd import POSITIONS


class _Buffers:
    """Activations and gradients of a batch. They return to the pool when their function is gone."""

    def __init__(self, pixels: int, parts: int) -> None:
        self.pixels, self.parts = pixels, parts
        self.activations = [_aligned(pixels * channels) for channels in (C1, C2, C3)]
        self.gradients = [_aligned(pixels * channels) for channels in (C1, C2)]
        shapes = [(parts, POSITIONS * C1 * C2), (parts, POSITIONS * C2 * C3)]
        self.weight_gradients = [_aligned(math.prod(shape)).reshape(shape) for shape in shapes]


class _Lease:
    """Buffers in use by one function; a graph may hold several."""

    def __init__(self, pool: list[_Buffers], buffers: _Buffers) -> None:
        self._pool, self._buffers = pool, buffers
        self.activations, self.gradients = buffers.activations, buffers.gradients
        self.weight_gradients = buffers.weight_gradients

    def __del__(self) -> None:
        # One set suffices training; a second spares graphs that use the model twice.
        if len(self._pool) < 2:
            self._pool.insert(0, self._buffers)


class _Pool:
    """Buffers kept from step to step."""

    def __init__(self) -> None:
        self._free: list[_Buffers] = []

    def take(self, pixels: int, parts: int) -> _Lease:
        with lock:
            for i, buffers in enumerate(self._free):
                if buffers.pixels >= pixels and buffers.parts >= parts:
                    return _Lease(self._free, self._free.pop(i))
            self._free.clear()
        return _Lease(self._free, _Buffers(pixels, parts))


class _Scratch:
    """Each thread's scratch, kept for one image size."""

    def __init__(self) -> None:
        self._scratch = np.empty((0, 0), np.float32)

    def take(self, height: int, width: int) -> np.ndarray:
        shape = (thread_count(), -(-passes.scratch_size(height, width) // 1024) * 1024)
        if self._scratch.shape != shape:
            self._scratch = _aligned(shape[0] * shape[1]).reshape(shape)
        return self._scratch


def _aligned(size: int) -> np.ndarray:
    """Zeros that begin on a cache line, so that no vector straddles two."""
    memory = np.zeros(size + 16, np.float32)
    skip = -memory.ctypes.data // 4 % 16
    return memory[skip : skip + size]


# A program may use models from several threads; the scratch and the team of threads serve one at a time.
pool, scratch, lock = _Pool(), _Scratch(), threading.Lock()
