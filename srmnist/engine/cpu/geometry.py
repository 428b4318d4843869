"""Sizes of what the kernels work on: padded images, tiles, bands of tiles, and a thread's scratch memory.

The functions run in Python and in compiled code.
"""

from typing import NamedTuple

from numba.extending import register_jitable

from srmnist.engine.cpu.simd import LANES, REGISTERS

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


@register_jitable
def scratch_size(height, width):
    """Floats of scratch memory that a thread needs: two padded images, an image, a band's `kernels.Tiles`."""
    padded, image, transformed, lines = scratch_sizes(height, width)
    return 2 * padded + image + 3 * transformed + lines + STRIDE**2 * LANES
