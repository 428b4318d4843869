"""A stand-in for `srmnist.engine.gpu.device.Device` that runs the same launches on the CPU."""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from srmnist.engine.gpu.plan import BESIDE, JOINED

COMPILER = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++") or shutil.which("clang++")
_LETTERS = {
    "i": np.int32,
    "l": np.int64,
    "d": np.float64,
    "F": np.float32,
    "D": np.float64,
    "I": np.int32,
    "B": np.uint8,
}
_GUARD = 64  # elements before and after each buffer, which no kernel may touch


def kernel_names(source: str) -> list[str]:
    """Every kernel of a source."""
    macros = re.findall(r"(?m)^(?:CONV3X3|WEIGHT_GRADIENT)\((\w+),", source)
    plain = re.findall(r'extern "C" __global__ void __launch_bounds__\([^;{]*?\)\s+(\w+)\(', source)
    return sorted({*macros, *plain} - {"name"})


# A GPU's compiler fuses a product and a sum into one rounding, too.
# _FORTIFY_SOURCE takes a fiber's longjmp for an accident.
_FLAGS = "-std=c++17 -O3 -march=native -ffp-contract=fast -w -shared -fPIC -pthread -U_FORTIFY_SOURCE"


@functools.cache
def library(directory: Path, source: str) -> ctypes.CDLL:
    """A source's kernels, compiled unless they lie in the directory already."""
    shim = (Path(__file__).parent / "shim.h").read_text()
    exports = "\n".join(f"EXPORT({name})" for name in kernel_names(source))
    # Unrolled loops become vector instructions: the tests' 3.6 billion products a step want them.
    unrolled = source.replace("#pragma unroll\n", "#pragma GCC unroll 32\n")
    program = f"{shim}\n{unrolled}\n{exports}\n"
    built = directory / f"{hashlib.sha256((_FLAGS + program).encode()).hexdigest()[:16]}.so"
    if not built.exists():
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            written, fresh = Path(scratch, "kernels.cpp"), Path(scratch, "kernels.so")
            written.write_text(program)
            command = [COMPILER, *_FLAGS.split(), written, "-o", fresh]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[:5000]
            fresh.replace(built)
    return ctypes.CDLL(str(built))


class HostDevice:
    """NumPy instead of CuPy. Fresh buffers hold NaN, and are watched at both ends.

    Parameters
    ----------
    kernels : CDLL
        From `library`.

    Attributes
    ----------
    backwards : bool
        Whether the last thread of a block goes first.
    captures : int
        How often `capture` was called.
    """

    xp = np

    def __init__(self, kernels: ctypes.CDLL) -> None:
        self._library = kernels
        self._guarded: list[np.ndarray] = []
        self.backwards = False
        self.captures = 0

    def compile(self) -> None:
        """The kernels are compiled already."""

    def empty(self, size: int, dtype: type) -> np.ndarray:
        whole = np.full(size + 2 * _GUARD, _poison(dtype), dtype)
        self._guarded.append(whole)
        return whole[_GUARD:-_GUARD]

    def check_guards(self) -> None:
        """Fail if a kernel has written beside a buffer that has been made since the last check."""
        for whole in self._guarded:
            for end in (whole[:_GUARD], whole[-_GUARD:]):
                np.testing.assert_array_equal(end, _poison(whole.dtype))
        self._guarded.clear()

    def holds(self, array: np.ndarray) -> bool:
        return type(array) is np.ndarray

    def upload(self, array: np.ndarray, to: np.ndarray) -> None:
        to[:] = array

    def bind(self, launches, arrays) -> Callable[..., None]:
        """As `Device.bind`; with two streams, what may run beside the rest runs as late as it may."""
        bound = [(launch.order, self._bind(launch, arrays)) for launch in launches]

        def run(chain=None, beside=None) -> None:
            late = []
            for order, call in bound:
                if chain and order == BESIDE:
                    late.append(call)
                    continue
                if order == JOINED:
                    while late:
                        late.pop(0)()
                call()
            for call in late:
                call()
            misaligned = self._library.take_misaligned()
            assert misaligned == 0, f"{misaligned} vectors were read or written at an address they cannot be"

        return run

    def capture(self, run: Callable[..., None]) -> Callable[[], None]:
        self.captures += 1
        return lambda: run("chain", "beside")

    def _bind(self, launch, arrays) -> Callable[[], None]:
        function = getattr(self._library, f"run_{launch.kernel}")
        named = getattr(self._library, f"letters_{launch.kernel}")
        named.restype = ctypes.c_char_p
        letters = named().decode()
        assert len(letters) == len(launch.arguments), launch
        values = [_value(*pair, arrays, launch) for pair in zip(letters, launch.arguments, strict=True)]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))

        def call(values=values) -> None:
            function(pointers, launch.blocks, launch.threads, ctypes.c_bool(self.backwards))

        return call


def _poison(dtype: type | np.dtype) -> float:
    """What fresh memory holds: NaN, or the largest integer."""
    return np.nan if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max


def _value(letter: str, argument, arrays, launch) -> np.ndarray:
    """An argument's value, as an array of one element that has its type."""
    dtype = np.dtype(_LETTERS[letter])
    if letter.islower():
        assert np.dtype(type(argument)) == dtype, (launch, argument)
        return np.array(argument, dtype)
    if argument is None:
        return np.zeros(1, np.uintp)
    array = arrays[argument]
    assert array.dtype == dtype, (launch, argument)
    assert array.flags.c_contiguous
    return np.array(array.ctypes.data, np.uintp)
