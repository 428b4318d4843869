"""Sizes of what the kernels work on: padded images, tiles, bands of tiles, and a thread's scratch memory.

Most functions run in Python and in compiled code.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from srmnist.engine.cpu.simd import CACHE_LINE, LANES, REGISTERS

C1, C2, C3 = 16, 32, 64  # channels of the outputs of conv1, conv2 and conv3

# Winograd's F(4×4, 3×3) computes a tile of 4×4 output pixels from 6×6 input pixels, with 36 products. Tiles
# begin 4 pixels apart.
STRIDE = 4
SIDE = 6
POSITIONS = SIDE * SIDE

# Rows of a matrix product's tile. Two such tiles, two vectors wide, fill the registers and leave room for the
# two vectors and the scalar that are multiplied. An image of 28×28 pixels has 7×7 tiles.
TILE_ROWS = 7 if REGISTERS == 32 else 3

# Tiles in a band, about: what Winograd's algorithm makes of them fits the L2 cache beside the weights.
_BAND_TILES = 14


# Evaluation divides a large image into blocks, which threads compute one by one. A pixel depends on so many
# pixels to each side, one for each convolution: what a block needs beyond its edges.
HALO = 4
# The width of a block, about. What the layers keep of a block's rows (see `evaluation_sizes`) then fits the
# L2 cache, and the halo is a sixteenth of the width. Of 64, 96, 128 and 192 pixels this was the fastest.
_BLOCK_WIDTH = 128
# A large image has at least so many blocks, so that threads end at the same time, unless they would be lower
# than this: then the halo costs more than the threads gain.
_BLOCKS, _BLOCK_HEIGHT = 32, 96


class Band(NamedTuple):
    """The rows ``first`` to ``last`` of an image's tiles, each of ``across`` tiles.

    Transformed tiles have ``slots`` rows: at least one for each tile, and a number that is divisible by
    `TILE_ROWS`, so the matrix products need no special case for the last rows.
    """

    first: int
    last: int
    across: int
    slots: int


@register_jitable
def ceil_divide(dividend, divisor):
    """The quotient, rounded up."""
    return -(-dividend // divisor)


@register_jitable
def padded_shape(height, width):
    """Height and width of a padded image: a border of one pixel around whole tiles."""
    return STRIDE * ceil_divide(height, STRIDE) + 2, STRIDE * ceil_divide(width, STRIDE) + 2


@register_jitable
def band_shape(height, width):
    """Rows of tiles in a band, tiles in a row, and slots."""
    across = ceil_divide(width, STRIDE)
    rows = min(ceil_divide(height, STRIDE), max(1, _BAND_TILES // across))
    return rows, across, ceil_divide(rows * across, TILE_ROWS) * TILE_ROWS


@register_jitable
def rows_of_products(band):
    """Rows of a band's transformed tiles that the products compute: its tiles, in whole `TILE_ROWS`."""
    return ceil_divide((band.last - band.first) * band.across, TILE_ROWS) * TILE_ROWS


@register_jitable
def scratch_sizes(height, width):
    """Floats that each part of the scratch memory needs for images of one size.

    The parts are a padded image of 64 channels, an image of 64 channels, a band's transformed tiles, and the
    lines that the first half of a transform gives to the second.
    """
    padded_height, padded_width = padded_shape(height, width)
    slots = band_shape(height, width)[2]
    return (
        padded_height * padded_width * C3,
        height * width * C3,
        POSITIONS * slots * C3,
        SIDE * padded_width * LANES,
    )


@lru_cache(maxsize=64)
def scratch_size(height: int, width: int) -> int:
    """Floats of scratch memory that a thread needs: two padded images, an image, a band's `kernels.Tiles`."""
    padded, image, _, _ = scratch_sizes(height, width)
    return 2 * padded + image + band_size(height, width)


@register_jitable
def band_size(height, width):
    """Floats of scratch memory for a band's `kernels.Tiles`."""
    _, _, transformed, lines = scratch_sizes(height, width)
    return 3 * transformed + lines + STRIDE**2 * LANES


@register_jitable
def with_halo(first, last, length):
    """The part of an image's side that the part from `first` to `last` depends on."""
    return max(0, first - HALO), min(length, last + HALO)


@register_jitable
def evaluation_rows(height, width):
    """Rows of pixels of a block that each layer computes at a time in evaluation: a band of tiles."""
    return STRIDE * band_shape(height, width)[0]


@register_jitable
def evaluation_sizes(height, width):
    """Floats that each part of the scratch memory needs in evaluation of a block, with its halo.

    The parts are some rows of the padded inputs of the first three convolutions, some rows of one
    convolution's output, and the three padded rows of `one_channel.gather`.
    """
    rows = evaluation_rows(height, width)
    padded_width = padded_shape(height, width)[1]
    return (
        CACHE_LINE
        * ceil_divide((rows + STRIDE + 3) * padded_width, CACHE_LINE),  # the others are whole lines
        (rows + STRIDE + 2) * padded_width * C1,
        (rows + STRIDE + 2) * padded_width * C2,
        max((rows + STRIDE + 1) * C1, (rows + STRIDE) * C2, rows * C3) * width,
        3 * (width + 2) * C3,
    )


class Grid(NamedTuple):
    """An image's blocks, for evaluation.

    ``blocks`` (n, 4) are their first and last rows, first and last columns, without the halo; ``scratch`` is
    the number of floats of scratch memory that a thread needs for any of them.
    """

    blocks: np.ndarray
    scratch: int


@lru_cache(maxsize=64)
def evaluation_grid(height: int, width: int) -> Grid:
    """Divide an image into blocks. They begin at whole tiles and depend on the image's size alone."""
    across = ceil_divide(width, _BLOCK_WIDTH) if width > _BLOCK_WIDTH + 2 * HALO else 1
    down = max(1, min(height // _BLOCK_HEIGHT, ceil_divide(_BLOCKS, across)))
    blocks = [(*rows, *columns) for rows in _parts(height, down) for columns in _parts(width, across)]
    sizes = set()
    for top, bottom, left, right in blocks:
        first_row, last_row = with_halo(top, bottom, height)
        first_column, last_column = with_halo(left, right, width)
        shape = last_row - first_row, last_column - first_column
        sizes.add(sum(evaluation_sizes(*shape)) + band_size(*shape))
    return Grid(np.array(blocks), max(sizes))


def _parts(length: int, count: int) -> list[tuple[int, int]]:
    """A length in at most `count` parts of equal numbers of tiles; the last one may be shorter."""
    part = STRIDE * ceil_divide(ceil_divide(length, STRIDE), count)
    return [(first, min(first + part, length)) for first in range(0, length, part)]
