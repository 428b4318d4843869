"""The division of a batch into slices, which threads compute one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from srmnist.engine.cpu import memory, threads
from srmnist.engine.cpu.geometry import evaluation_grid, scratch_size

# Each slice has its own sum of weight gradients, and the rounding of a sum depends on its summands. With a
# constant number of slices, any number of threads gives the same bits. At most this many threads can compute
# a backward pass. Another number would change the bits of every trained model.
_SUMMED_SLICES = 8


def summed_slices(batch: int) -> int:
    """Number of slices of a pass that sums over images."""
    return min(batch, _SUMMED_SLICES)


def for_each_slice(
    compute: Callable[..., None],
    images: Sequence[np.ndarray],
    constants: Sequence[np.ndarray],
    sums: np.ndarray | None = None,
) -> None:
    """Let one of `passes` compute a batch, slice by slice, on all threads.

    Parameters
    ----------
    compute : function (*slices of images, *constants, [element of sums], scratch)
    images : sequence of ndarray
        Arrays with a row for each image of the batch. The first one's shape begins with (B, H, W).
    constants : sequence of ndarray
        What is the same for all images.
    sums : ndarray, optional
        An element (along the first axis) for each of the batch's `summed_slices`. If there are no sums, the
        number of slices grows with the number of threads: results for single images do not depend on it.
    """
    batch, height, width = images[0].shape[:3]
    count = _slices(batch) if sums is None else len(sums)
    size = scratch_size(height, width)

    def compute_slice(i: int, first: int, last: int) -> None:
        own_sum = () if sums is None else (sums[i],)
        compute(*(array[first:last] for array in images), *constants, *own_sum, memory.scratch(size))

    threads.run_parts(compute_slice, batch, count)


def for_each_block(
    compute: Callable[..., None], x: np.ndarray, z: np.ndarray, constants: Sequence[np.ndarray]
) -> None:
    """Let `passes.evaluate` compute the blocks of a batch's images on all threads.

    Parameters
    ----------
    compute : function (x, z, blocks, first, last, *constants, scratch)
    x, z : ndarray, (B, H, W)
    constants : sequence of ndarray
    """
    batch, height, width = x.shape
    grid = evaluation_grid(height, width)
    total = batch * len(grid.blocks)

    def compute_slice(_: int, first: int, last: int) -> None:
        compute(x, z, grid.blocks, first, last, *constants, memory.scratch(grid.scratch))

    threads.run_parts(compute_slice, total, _slices(total))


def _slices(total: int) -> int:
    """Number of slices of a pass that sums nothing: a late thread keeps the others from waiting long."""
    return min(total, max(_SUMMED_SLICES, 2 * threads.thread_count()))
