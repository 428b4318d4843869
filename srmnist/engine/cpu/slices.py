"""The division of a batch's blocks into slices, which threads compute one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from srmnist.engine.cpu import memory, threads
from srmnist.engine.cpu.geometry import Grid

# Each slice has its own sum of weight gradients, and the rounding of a sum depends on its summands. With a
# constant number of slices, any number of threads gives the same bits. At most this many threads can compute
# a backward pass. Another number would change the bits of every trained model.
_SUMMED_SLICES = 8


def summed_slices(blocks: int) -> int:
    """Number of slices of a pass that sums over a batch's blocks."""
    return min(blocks, _SUMMED_SLICES)


def for_each_block(
    compute: Callable[..., None],
    grid: Grid,
    images: Sequence[np.ndarray],
    constants: Sequence[np.ndarray],
    sums: np.ndarray | None = None,
) -> None:
    """Let one of `passes` compute the blocks of a batch's images, slice by slice, on all threads.

    Parameters
    ----------
    compute : function (*images, blocks, first, last, *constants, [element of sums], scratch)
    grid : Grid
        The blocks of each image.
    images : sequence of ndarray
        Arrays with something for each image or block. The first one has a row for each image of the batch.
    constants : sequence of ndarray
        What is the same for all blocks.
    sums : ndarray, optional
        An element (along the first axis) for each of the batch's `summed_slices`. If there are no sums, the
        number of slices grows with the number of threads: results for single blocks do not depend on it.
    """
    total = len(images[0]) * len(grid.blocks)

    def compute_slice(i: int, first: int, last: int) -> None:
        own_sum = () if sums is None else (sums[i],)
        compute(*images, grid.blocks, first, last, *constants, *own_sum, memory.scratch(grid.scratch))

    threads.run_parts(compute_slice, total, _slices(total) if sums is None else len(sums))


def _slices(total: int) -> int:
    """Number of slices of a pass that sums nothing: a late thread keeps the others from waiting long."""
    return min(total, max(_SUMMED_SLICES, 2 * threads.thread_count()))
