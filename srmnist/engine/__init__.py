"""The seam behind which speed lives.

`srmnist/model.py` is the article; `accelerated` on its ``forward`` lets an engine compute the same function
faster. The engine agrees with the article's functions to float32 rounding, and steps aside where it cannot
serve: other devices, other dtypes, other shapes. ``chainer.config.plain = True``, or for a while
``with chainer.using_config("plain", True):``, runs the article's functions instead.
"""

import functools
import sys

import chainer
import numpy as np

chainer.global_config.plain = False

# How the line begins that stands on stderr, once, where Numba is missing.
NO_NUMBA = "srmnist: no Numba"

_SHAPES = [(16, 1, 3, 3), (16,), (16,), (32, 16, 3, 3), (32,), (32,), (64, 32, 3, 3), (64,), (64,),
           (1, 64, 3, 3), (1,)]  # fmt: skip


def accelerated(forward):
    """Let an engine compute ``forward(model, x)`` where one can; otherwise run it as written."""

    @functools.wraps(forward)
    def restored(model, x):
        engine = None if chainer.config.plain else _cpu()
        if engine is None or not _fits(engine, model, x):
            return forward(model, x)
        return engine.Restore(model).apply([x, *engine.parameters(model)])[0]

    return restored


@functools.cache
def _cpu():
    """The CPU engine, or None where Numba is missing or does not know this NumPy; then it says so once."""
    try:
        from srmnist.engine import function
    except ImportError as error:
        sys.stderr.write(f"{NO_NUMBA} ({error}); plain Chainer functions run instead, slower\n")
        return None
    return function


def _fits(engine, model, x) -> bool:
    """Whether the engine can take these arrays: float32 on the CPU, with the article's shapes."""
    arrays = [chainer.as_array(x), *(parameter.array for parameter in engine.parameters(model))]
    return (
        all(type(array) is np.ndarray and array.dtype == np.float32 for array in arrays)
        and [array.shape for array in arrays[1:]] == _SHAPES
        and arrays[0].ndim == 4
        and arrays[0].shape[1] == 1
        and arrays[0].size > 0
    )
