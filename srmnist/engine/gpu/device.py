"""A GPU as the engine uses it: buffers, launches, and launches captured as one CUDA graph."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import chainer
import numpy as np
from chainer.backends import cuda

from srmnist.engine.gpu import plan
from srmnist.engine.gpu.plan import Launch

_FILES = ("common", "convolution", "one_channel", "normalisation", "training", "muon")
_STAGES = 64  # uploads that may be under way
FLAGS = ("--std=c++17",)


@functools.cache
def source() -> str:
    """The kernels' CUDA C++ source, one translation unit, with the numbers of `plan`."""
    numbers = [f"constexpr int {name} = {value};" for name, value in plan.CONSTANTS.items()]
    numbers += [f"constexpr float {name} = {value}f;" for name, value in plan.FRACTIONS.items()]
    texts = [(Path(__file__).parent / f"{name}.cuh").read_text(encoding="ascii") for name in _FILES]
    return "\n".join([*numbers, *texts])


def current() -> Device:
    """The device that is current in this thread."""
    return _device(cuda.cupy.cuda.runtime.getDevice())


class Device:
    """One CUDA device with the engine's kernels, which NVRTC compiles for it; CuPy keeps them on disk.

    Launches go to CuPy's current stream.

    Parameters
    ----------
    number : int
        CUDA's.

    Attributes
    ----------
    xp : module
        CuPy.
    """

    def __init__(self, number: int) -> None:
        self.xp = cuda.cupy
        self._number = number
        self._module = self.xp.RawModule(code=source(), options=FLAGS)
        self.kernel = functools.cache(self._module.get_function)
        # From pageable memory CUDA may wait for the stream before it copies; from pinned memory never.
        self._sent = [self.xp.cuda.Event(disable_timing=True) for _ in range(_STAGES)]
        self._pinned = [np.empty(0, np.uint8)] * _STAGES
        self._uploads = 0

    def compile(self) -> None:
        """Compile the kernels, or take them from CuPy's cache: what is wrong shows before the first step."""
        self._module.compile()

    def empty(self, size: int, dtype: type) -> chainer.types.NdArray:
        """A buffer of any content."""
        return self.xp.empty(size, dtype)

    def holds(self, array: object) -> bool:
        """Whether an array lies on this device."""
        return isinstance(array, cuda.ndarray) and array.device.id == self._number

    def upload(self, array: np.ndarray, to: chainer.types.NdArray) -> None:
        """Copy a small array to a buffer, in the order of the stream; `array` may change at once.

        This waits for the device only if that is `_STAGES` uploads behind.
        """
        stage = self._uploads % _STAGES
        self._uploads += 1
        self._sent[stage].synchronize()
        if self._pinned[stage].nbytes < array.nbytes:
            self._pinned[stage] = np.frombuffer(self.xp.cuda.alloc_pinned_memory(array.nbytes), np.uint8)
        staged = self._pinned[stage][: array.nbytes].view(array.dtype)
        staged[...] = array
        to.set(staged)
        self._sent[stage].record()

    def bind(
        self, launches: Iterable[Launch], arrays: Mapping[str, chainer.types.NdArray]
    ) -> Callable[..., None]:
        """A function that launches all of a list on certain buffers.

        Called without arguments, it launches them one after the other; called with two streams, of which the
        first is current, it launches on the second what may run beside the rest.
        """
        given = {None: np.uintp(0), **arrays}  # a null pointer: with None itself CuPy 13 would crash
        bound = [
            (order, self.kernel(kernel), (blocks,), (threads,), tuple(given.get(a, a) for a in arguments))
            for kernel, blocks, threads, arguments, order in launches
        ]

        def run(chain: Any = None, beside: Any = None) -> None:
            forked = False
            for order, kernel, blocks, threads, arguments in bound:
                if chain and order == plan.BESIDE:
                    beside.wait_event(chain.record())
                    forked = True
                if forked and order == plan.JOINED:
                    chain.wait_event(beside.record())
                    forked = False
                with beside if chain and order == plan.BESIDE else nullcontext():
                    kernel(blocks, threads, arguments)
            if forked:
                chain.wait_event(beside.record())

        return run

    def capture(self, run: Callable[..., None]) -> Callable[[], None]:
        """A function that replays, as one CUDA graph, what a function from `bind` launches.

        `run` must have run before: what is loaded at a first launch cannot be loaded in a capture.

        Raises
        ------
        Exception
            Any error of CUDA or CuPy if it cannot be captured; then nothing is left in capture.
        """
        # The default stream cannot be captured.
        chain, beside = (self.xp.cuda.Stream(non_blocking=True) for _ in range(2))
        with chain:
            chain.begin_capture()
            try:
                run(chain, beside)
            except BaseException:
                with suppress(Exception):
                    chain.end_capture()
                raise
            graph = chain.end_capture()
        # A graph has only the buffers' addresses: `run` keeps the buffers as long as the graph is in use.
        return lambda kept=run: graph.launch()


_device = functools.cache(Device)
