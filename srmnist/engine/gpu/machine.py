"""A GPU, as the engine sees it: buffers, launches, and launches captured to be replayed at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import chainer
import numpy as np
from chainer.backends import cuda

from srmnist.engine.gpu.plan import Launch, Place
from srmnist.engine.gpu.source import source

_STAGES = 64  # uploads that may be under way


def current() -> Machine:
    """The device that is current in this thread."""
    return _machine(cuda.cupy.cuda.runtime.getDevice())


@functools.cache
def _machine(device: int) -> Machine:
    return Machine(device)


class Machine:
    """One CUDA device with the engine's kernels, which NVRTC compiles for it; CuPy keeps them on disk.

    Launches go to CuPy's current stream, one after the other.

    Attributes
    ----------
    xp : module
        CuPy.
    """

    def __init__(self, device: int) -> None:
        self.xp = cuda.cupy
        self._device = device
        self._module = self.xp.RawModule(code=source(), options=("--std=c++17",))
        self._kernels: dict[str, Callable] = {}
        # The engine's buffers come from a pool of their own, which lives as long as the program: a captured
        # graph holds their addresses and nothing that would keep them.
        self._pool = self.xp.cuda.MemoryPool()
        # From pageable memory CUDA may wait for the stream before it copies; from pinned memory never.
        self._staging = [_Slot(self.xp.cuda.Event(disable_timing=True)) for _ in range(_STAGES)]
        self._uploads = 0

    def empty(self, size: int, dtype: type) -> chainer.types.NdArray:
        """A buffer of any content."""
        with self.xp.cuda.using_allocator(self._pool.malloc):
            return self.xp.empty(size, dtype)

    def holds(self, array: object) -> bool:
        """Whether an array lies on this device."""
        return isinstance(array, cuda.ndarray) and array.device.id == self._device

    def upload(self, array: np.ndarray, to: chainer.types.NdArray) -> None:
        """Copy a small array to a buffer, in the order of the stream; `array` may change at once.

        This does not wait for the device, unless that is very far behind.
        """
        slot = self._staging[self._uploads % _STAGES]
        self._uploads += 1
        slot.sent.synchronize()
        if slot.memory.nbytes < array.nbytes:
            slot.memory = np.frombuffer(self.xp.cuda.alloc_pinned_memory(array.nbytes), np.uint8)
        staged = slot.memory[: array.nbytes].view(array.dtype)
        staged[...] = array
        to.set(staged)
        slot.sent.record()

    def bind(
        self, launches: Iterable[Launch], arrays: Mapping[str, chainer.types.NdArray]
    ) -> Callable[[], None]:
        """A function that launches all of a list on certain buffers."""
        bound = []
        for launch in launches:
            arguments = tuple(_argument(argument, arrays) for argument in launch.arguments)
            bound.append((self._kernel(launch.kernel), (launch.blocks,), (launch.threads,), arguments))

        def run() -> None:
            for kernel, blocks, threads, arguments in bound:
                kernel(blocks, threads, arguments)

        return run

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """A function that replays what `run` launches, as one CUDA graph.

        `run` must have run before: what is loaded at a first launch cannot be loaded in a capture. It may
        launch kernels only, no library's and no copies to the host.

        Raises
        ------
        Exception
            Whatever CUDA or CuPy say if it cannot be captured; then nothing is left in capture.
        """
        stream = self.xp.cuda.Stream(non_blocking=True)  # the default stream cannot be captured
        with stream:
            stream.begin_capture()
            try:
                run()
            except BaseException:
                with suppress(Exception):
                    stream.end_capture()
                raise
            graph = stream.end_capture()
        return lambda: graph.launch()

    def _kernel(self, name: str) -> Callable:
        if name not in self._kernels:
            self._kernels[name] = self._module.get_function(name)
        return self._kernels[name]


@dataclass
class _Slot:
    """Pinned memory that an upload passes through, and the event that tells when it has."""

    sent: Any
    memory: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))


def _argument(argument, arrays):
    """An argument as CuPy's kernels take it."""
    if argument is None:
        return np.uintp(0)  # a null pointer; with None itself CuPy 13 would crash
    if isinstance(argument, Place):
        return arrays[argument.buffer][argument.offset :]
    return arrays[argument] if isinstance(argument, str) else argument
