"""The seam behind which speed lives.

`srmnist/model.py` is the article; `accelerated` on its ``forward`` lets an engine compute the same function
faster: one for the CPU (Numba), one for CUDA devices (`srmnist.engine.gpu`). They agree with the article's
functions to float32 rounding, and step aside where they cannot serve: other dtypes, other shapes.
``chainer.config.plain = True``, or for a while ``with chainer.using_config("plain", True):``, runs the
article's functions instead.
"""

import functools
import sys

import chainer
import numpy as np
from chainer.backends import cuda

from srmnist.engine.network import is_float32, is_shared, normalisations, parameters

if not hasattr(chainer.global_config, "plain"):  # which a program may set before it builds a model
    chainer.global_config.plain = False

# How the line begins that stands on stderr, once, where Numba is missing.
NO_NUMBA = "srmnist: no Numba"


def accelerated(forward):
    """Let an engine compute ``forward(model, x)`` where one can; otherwise run it as written."""

    @functools.wraps(forward)
    def restored(model, x):
        engine = None if chainer.config.plain else _engine(chainer.as_array(x))
        if engine is None or not _fits(engine, model, x):
            return forward(model, x)
        return engine.Restore(model).apply([x, *parameters(model)])[0]

    return restored


def _engine(array):
    """The module that computes with arrays of such a type, if there is one."""
    if type(array) is np.ndarray:
        return _cpu()
    return _gpu() if isinstance(array, cuda.ndarray) else None


@functools.cache
def _cpu():
    """The CPU engine, or None where Numba is missing or does not know this NumPy; then it says so once."""
    try:
        from srmnist.engine.cpu import function
    except ImportError as error:
        sys.stderr.write(f"{NO_NUMBA} ({error}); plain Chainer functions run instead, slower\n")
        return None
    return function


@functools.cache
def _gpu():
    """The GPU engine."""
    from srmnist.engine.gpu import function

    return function


def _fits(engine, model, x) -> bool:
    """Whether the engine can take these arrays: float32 where it computes, with the article's shapes."""
    x = chainer.as_array(x)
    return (
        all(map(engine.holds, [x, *(parameter.array for parameter in parameters(model))]))
        and x.dtype == np.float32
        and is_float32(model)
        and (engine.SERVES_RANKS or not any(map(is_shared, normalisations(model))))
        and x.ndim == 4
        and x.shape[1] == 1
        and x.size > 0
    )
