"""The kernels' CUDA C++ source."""

import functools
from pathlib import Path

_FILES = ("common", "convolution", "one_channel", "normalisation", "training")


@functools.cache
def source() -> str:
    """One translation unit, as NVRTC compiles it."""
    return "\n".join((Path(__file__).parent / f"{name}.cuh").read_text(encoding="ascii") for name in _FILES)
