"""Sizes of what the kernels work on: padded images, tiles, bands of tiles, and a thread's scratch memory.

Most functions run in Python and in compiled code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
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


# Large images are divided into blocks, which threads compute one by one. In evaluation a pixel depends on so
# many pixels to each side, one for each convolution: what a block needs beyond its edges.
HALO = 4
# The width of a block, about. What the layers keep of a block's rows (see `evaluation_sizes`) then fits the
# L2 cache, and the halo is a sixteenth of the width. Of 64, 96, 128 and 192 pixels this was the fastest.
_BLOCK_WIDTH = 128
# In evaluation, a large image has at least so many blocks, so that threads end at the same time, unless they
# would be lower than this: then the halo costs more than the threads gain. An image of 96 rows has two at
# least: one of 128×128 then takes 5 % longer in a batch, but is 1.8 times as fast alone.
_BLOCKS, _BLOCK_HEIGHT, _TWO_BLOCKS = 32, 128, 96
# The least height of a block in training. Lower blocks compute more tiles twice (`with_tiles_before`), higher
# ones need more scratch memory, and are too few for the threads. Of 16, 24, 32, 48, 64 and 96 pixels this was
# the fastest for images of 128×128 to 512×512.
_TRAINING_HEIGHT = 32


class Area(NamedTuple):
    """A rectangle of an image: the rows ``top`` to ``bottom``, the columns ``left`` to ``right``."""

    top: int
    bottom: int
    left: int
    right: int


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
def band_sizes(height, width):
    """Floats of a band's transformed tiles, and of the lines that half a transform gives to the other."""
    slots = band_shape(height, width)[2]
    return POSITIONS * slots * C3, SIDE * padded_shape(height, width)[1] * LANES


@register_jitable
def band_size(height, width):
    """Floats of scratch memory for a band's `kernels.Tiles`."""
    transformed, lines = band_sizes(height, width)
    return 3 * transformed + lines + STRIDE**2 * LANES


@register_jitable
def training_sizes(height, width):
    """Floats that each part of the scratch memory needs in training, for blocks of one size.

    The parts are the padded input of a convolution, its gradient, a padded image of one channel, and an image
    of 64 channels.
    """
    padded_height, padded_width = padded_shape(height, width)
    pixels = padded_height * padded_width
    return pixels * C2, pixels * C2, CACHE_LINE * ceil_divide(pixels, CACHE_LINE), height * width * C3


@register_jitable
def block_of(blocks, number):
    """The image and the area of the block with this number."""
    top, bottom, left, right = blocks[number % len(blocks)]
    return number // len(blocks), Area(top, bottom, left, right)


@register_jitable
def shape_of(area):
    """Height and width of an area."""
    return area.bottom - area.top, area.right - area.left


@register_jitable
def cut(image, area):
    """An area of an image, (H, W) or (H, W, C), as a view."""
    return image[area.top : area.bottom, area.left : area.right]


@register_jitable
def with_halo(area, halo, height, width):
    """An area and the pixels around it, as far as the image has them."""
    return Area(
        max(0, area.top - halo),
        min(height, area.bottom + halo),
        max(0, area.left - halo),
        min(width, area.right + halo),
    )


@register_jitable
def with_tiles_before(area):
    """A block and the tiles above it and to its left, which overlap with its own."""
    return Area(max(0, area.top - STRIDE), area.bottom, max(0, area.left - STRIDE), area.right)


@register_jitable
def whole_gradients(area, height, width):
    """The pixels whose gradients follow from the tiles of `with_tiles_before`.

    A tile of gradients begins one pixel before the tile of the output, and overlaps by two pixels with the
    next. So the pixels that are last in the block are the next block's, unless the image ends there.
    """
    return Area(
        max(0, area.top - 1),
        area.bottom if area.bottom == height else area.bottom - 1,
        max(0, area.left - 1),
        area.right if area.right == width else area.right - 1,
    )


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
    """The blocks of each image.

    ``blocks`` (n, 4) are their first and last rows, first and last columns, as in `Area`, without a halo;
    ``pixels`` (n,) are the numbers of their pixels. ``scratch`` is the number of floats of scratch memory
    that a thread needs for any of them.
    """

    blocks: np.ndarray
    pixels: np.ndarray
    scratch: int

    @classmethod
    def of(cls, areas: Sequence[Area], scratch: int) -> Grid:
        """The grid of these blocks."""
        blocks = np.array(areas)
        top, bottom, left, right = blocks.T
        return cls(blocks, (bottom - top) * (right - left), scratch)


@lru_cache(maxsize=64)
def evaluation_grid(height: int, width: int) -> Grid:
    """Divide an image into blocks for evaluation. They depend on the image's size alone."""
    across = _columns(width)
    least = 2 if height >= _TWO_BLOCKS else 1
    down = max(least, min(height // _BLOCK_HEIGHT, ceil_divide(_BLOCKS, across)))
    blocks = _blocks(height, width, down, across)
    sizes = set()
    for block in blocks:
        area = with_halo(block, HALO, height, width)
        sizes.add(sum(evaluation_sizes(*shape_of(area))) + band_size(*shape_of(area)))
    return Grid.of(blocks, max(sizes))


@lru_cache(maxsize=64)
def training_grid(height: int, width: int) -> Grid:
    """Divide an image into blocks for training. They depend on the image's size alone, as sums do on them."""
    blocks = _blocks(height, width, max(1, height // _TRAINING_HEIGHT), _columns(width))
    sizes = set()
    for block in blocks:
        area = with_tiles_before(block)
        sizes.add(sum(training_sizes(*shape_of(area))) + band_size(*shape_of(area)))
    return Grid.of(blocks, max(sizes))


def _columns(width: int) -> int:
    """The number of blocks side by side."""
    return ceil_divide(width, _BLOCK_WIDTH) if width > _BLOCK_WIDTH + 2 * HALO else 1


def _blocks(height: int, width: int, down: int, across: int) -> list[Area]:
    """An image in `down` × `across` blocks, row by row. They begin at whole tiles."""
    return [Area(*rows, *columns) for rows in _parts(height, down) for columns in _parts(width, across)]


def _parts(length: int, count: int) -> list[tuple[int, int]]:
    """A length in `count` parts, whose numbers of tiles differ by one at most."""
    tiles = ceil_divide(length, STRIDE)
    edges = [min(STRIDE * (tiles * i // count), length) for i in range(count + 1)]
    return list(pairwise(edges))
