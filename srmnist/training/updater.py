"""The updater: Chainer's, but a step that needs no graph is made without one."""

from __future__ import annotations

import chainer
import numpy as np
from chainer import reporter, training
from chainer.types import NdArray

from srmnist.engine import engine_of
from srmnist.model import CNNAE


class Updater(training.updaters.StandardUpdater):
    """A StandardUpdater whose steps are `update`'s, for batches of pairs (degraded, original)."""

    def update_core(self) -> None:
        iterator, optimizer = self.get_iterator("main"), self.get_optimizer("main")
        update(optimizer, *self.converter(iterator.next(), self.input_device))
        if iterator.is_new_epoch:
            optimizer.new_epoch(auto=True)


def update(optimizer: chainer.Optimizer, x: NdArray, t: NdArray) -> None:
    """Do what ``optimizer.update(optimizer.target, x, t)`` does, to the same bits.

    Where the CPU engine applies and nothing needs the graph, none is built.

    Parameters
    ----------
    optimizer : Optimizer
        Set up with a `CNNAE`. Its ``update()`` must take gradients that are already computed, as all of
        Chainer's do.
    x, t : ndarray, shape (B, 1, H, W)
        Degraded images and their originals.
    """
    model = optimizer.target
    if _needs_graph(optimizer, x, t) or engine_of(model, x) is None:
        optimizer.update(model, x, t)
        return
    from srmnist.engine.cpu import update as engine  # it needs Numba

    reporter.report({"loss": engine.update(optimizer, x, t)}, model)


def _needs_graph(optimizer: chainer.Optimizer, x: NdArray, t: NdArray) -> bool:
    model, config = optimizer.target, chainer.config
    return not (
        type(model) is CNNAE
        and type(x) is type(t) is np.ndarray
        and (x.shape, x.dtype) == (t.shape, t.dtype)
        and config.enable_backprop
        and not (config.debug or optimizer._loss_scale or chainer.get_function_hooks())
    )
