"""Faster computation of `CNNAE.forward`.

`srmnist.model` is the article's text. `accelerated` sends its ``forward`` through an engine where one
applies: Numba's compiled code on the CPU (`srmnist.engine.cpu`), CUDA kernels on a GPU
(`srmnist.engine.gpu`). The engines agree with the article's functions to float32 rounding. Where none
applies, for example with another dtype, the article's functions run. They also run if
``chainer.config.plain`` is True; ``with chainer.using_config("plain", True):`` sets that for a while.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType

import chainer
import numpy as np
from chainer.backends import cuda

from srmnist.engine.network import are_float32, is_shared, normalisations, parameters

if not hasattr(chainer.global_config, "plain"):  # a program may set it before it builds a model
    chainer.global_config.plain = False

# The beginning of the line that stderr gets, once, if Numba is missing.
NO_NUMBA = "srmnist: no Numba"


def accelerated(forward: Callable[..., chainer.Variable]) -> Callable[..., chainer.Variable]:
    """Let an engine compute ``forward(model, x)`` if one can; otherwise run it as written."""

    @functools.wraps(forward)
    def restored(model, x):
        engine = engine_of(model, x)
        if engine is None:
            return forward(model, x)
        return engine.Restore(model).apply([x, *parameters(model)])[0]

    return restored


def engine_of(model: chainer.Chain, x: chainer.Variable | np.ndarray) -> ModuleType | None:
    """The engine that computes ``model.forward(x)``; None if the article's functions do."""
    engine = None if chainer.config.plain else _engine(chainer.as_array(x))
    return engine if engine is not None and _fits(engine, model, x) else None


def _engine(array: object) -> ModuleType | None:
    """The engine that computes with arrays of this type, if there is one."""
    if type(array) is np.ndarray:
        return _cpu()
    return _gpu() if isinstance(array, cuda.ndarray) else None


@functools.cache
def _cpu() -> ModuleType | None:
    """The CPU engine; or None, and stderr says why: Numba is missing, switched off, or too old for NumPy."""
    try:
        from srmnist.engine.cpu import function
    except ImportError as error:
        if sys.stderr is not None:
            sys.stderr.write(f"{NO_NUMBA} ({error}); plain Chainer functions run instead, slower\n")
        return None
    return function


@functools.cache
def _gpu() -> ModuleType:
    """The GPU engine."""
    from srmnist.engine.gpu import function

    return function


def _fits(engine: ModuleType, model: chainer.Chain, x: chainer.Variable | np.ndarray) -> bool:
    """Whether the engine can take these arrays: float32, on its device, with the article's shapes."""
    x = chainer.as_array(x)
    arrays = [parameter.array for parameter in parameters(model)]
    return (
        all(map(engine.holds, [x, *arrays]))
        and x.dtype == np.float32
        and are_float32(arrays)
        and (engine.SERVES_RANKS or not any(map(is_shared, normalisations(model))))
        and x.ndim == 4
        and x.shape[1] == 1
        and x.size > 0
    )
