"""Winograd's minimal filtering F(2×2, 3×3), on vectors of channels.

A 3×3 convolution computes each 2×2 tile of its output from a 4×4 tile of its padded input as

    y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A

with 16 multiplications where the definition takes 36. Summed over input channels the elementwise product ⊙
is a matrix product for each of the 16 positions: (tiles × input channels) · (input × output channels).
The gradients are the exact transposes of the same three maps:

    dU = (Bᵀ d B) ⊙ (A dy Aᵀ),   dg = Gᵀ dU G     (weights)
    dV = (G g Gᵀ) ⊙ (A dy Aᵀ),   dd = B dV Bᵀ     (input, tiles overlapping by two pixels are added)

A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv:1509.09308.

Arrays are flat float32. Images are (H, W, C); padded ones (2·th + 2, 2·tw + 2, C) for th × tw tiles, with
the image one pixel in from the top left. Transformed tiles are (16, slots, C): a band of tile rows, with
slots ≥ its number of tiles.
"""

import numpy as np
from numba import njit

from srmnist.engine.simd import LANES, REGISTERS, load, product_tile, splat, store

# (G ⊗ G): maps the 9 elements of a filter, row by row, to the 16 of its transform.
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
FILTER_TRANSFORM = np.kron(_G, _G)

POSITIONS = 16
# Tiles of the matrix products, in vectors. Two columns of accumulators for each row fill the registers
# and leave room for the two vectors and the scalar that feed them.
TILE_ROWS = 14 if REGISTERS == 32 else 6
GRADIENT_ROWS = 8 if REGISTERS == 32 else 4
_COLUMNS = 2
_product = product_tile(TILE_ROWS, _COLUMNS, accumulate=False)
_accumulated_product = product_tile(GRADIENT_ROWS, _COLUMNS, accumulate=True)




@njit
def _difference_quadruple(a, b, c, d):
    """Bᵀ (a, b, c, d)."""
    return a - c, b + c, c - b, b - d


@njit
def transform_input(x, width, channels, first_row, last_row, tiles_x, v, slots):
    """V = Bᵀ d B of the tiles in rows `first_row` to `last_row` of a padded image `x` of that width."""
    row = width * channels
    plane = slots * channels
    for c in range(0, channels, LANES):
        to = c
        for ty in range(first_row, last_row):
            at = 2 * ty * row + c
            # Neighbouring tiles share two columns; they stay in registers.
            p0, p1, p2, p3 = _input_column(x, at, row)
            q0, q1, q2, q3 = _input_column(x, at + channels, row)
            for _tile in range(tiles_x):
                at += 2 * channels
                r0, r1, r2, r3 = _input_column(x, at, row)
                s0, s1, s2, s3 = _input_column(x, at + channels, row)
                _store_row(v, to, plane, 0, p0, q0, r0, s0)
                _store_row(v, to, plane, 4, p1, q1, r1, s1)
                _store_row(v, to, plane, 8, p2, q2, r2, s2)
                _store_row(v, to, plane, 12, p3, q3, r3, s3)
                p0, p1, p2, p3 = r0, r1, r2, r3
                q0, q1, q2, q3 = s0, s1, s2, s3
                to += channels


@njit
def _input_column(x, at, row):
    return _difference_quadruple(
        load(x, at), load(x, at + row), load(x, at + 2 * row), load(x, at + 3 * row)
    )


@njit
def _store_row(v, to, plane, position, a, b, c, d):
    a, b, c, d = _difference_quadruple(a, b, c, d)
    store(v, to + position * plane, a)
    store(v, to + (position + 1) * plane, b)
    store(v, to + (position + 2) * plane, c)
    store(v, to + (position + 3) * plane, d)


@njit
def multiply(v, u, m, slots, inputs, outputs):
    """M = V · U at each of the 16 positions: (slots, inputs) · (inputs, outputs)."""
    for position in range(POSITIONS):
        v0 = position * slots * inputs
        u0 = position * inputs * outputs
        m0 = position * slots * outputs
        for j in range(0, outputs, _COLUMNS * LANES):
            for i in range(0, slots, TILE_ROWS):
                _product(
                    v, v0 + i * inputs, inputs, 1,
                    u, u0 + j, outputs,
                    m, m0 + i * outputs + j, outputs, inputs,
                )  # fmt: skip


@njit
def accumulate_weight_gradient(v, z, du, slots, tiles, inputs, outputs):
    """dU += Vᵀ · Z at each of the 16 positions: (inputs, tiles) · (tiles, outputs)."""
    for position in range(POSITIONS):
        v0 = position * slots * inputs
        z0 = position * slots * outputs
        du0 = position * inputs * outputs
        for j in range(0, outputs, _COLUMNS * LANES):
            for i in range(0, inputs, GRADIENT_ROWS):
                _accumulated_product(
                    v, v0 + i, 1, inputs,
                    z, z0 + j, outputs,
                    du, du0 + i * outputs + j, outputs, tiles,
                )  # fmt: skip


@njit
def output_tile(m, at, plane):
    """Aᵀ m A of one tile and one vector of channels: the pixels (0, 0), (0, 1), (1, 0), (1, 1)."""
    a0, b0 = _output_column(m, at, plane)
    a1, b1 = _output_column(m, at + plane, plane)
    a2, b2 = _output_column(m, at + 2 * plane, plane)
    a3, b3 = _output_column(m, at + 3 * plane, plane)
    return a0 + a1 + a2, a1 - a2 - a3, b0 + b1 + b2, b1 - b2 - b3


@njit
def _output_column(m, at, plane):
    a, b, c, d = load(m, at), load(m, at + 4 * plane), load(m, at + 8 * plane), load(m, at + 12 * plane)
    return a + b + c, b - c - d


@njit
def store_gradient_tile(z, to, plane, a, b, c, d):
    """Z = A dy Aᵀ of one tile's pixels (0, 0), (0, 1), (1, 0), (1, 1) and one vector of channels."""
    _store_gradient_row(z, to, plane, a, b)
    _store_gradient_row(z, to + 4 * plane, plane, a + c, b + d)
    _store_gradient_row(z, to + 8 * plane, plane, a - c, b - d)
    zero = splat(np.float32(0))
    _store_gradient_row(z, to + 12 * plane, plane, zero - c, zero - d)


@njit
def _store_gradient_row(z, to, plane, a, b):
    store(z, to, a)
    store(z, to + plane, a + b)
    store(z, to + 2 * plane, a - b)
    store(z, to + 3 * plane, splat(np.float32(0)) - b)


@njit
def add_input_gradient(m, slots, width, channels, first_row, last_row, tiles_x, dx):
    """dx += B m Bᵀ for the tiles in rows `first_row` to `last_row` of a padded image `dx` of that width."""
    row = width * channels
    plane = slots * channels
    zero = splat(np.float32(0))
    for c in range(0, channels, LANES):
        at = c
        for ty in range(first_row, last_row):
            to = 2 * ty * row + c
            # The two right columns of a tile are the left ones of the next; they stay in registers.
            p0 = p1 = p2 = p3 = q0 = q1 = q2 = q3 = zero
            for _tile in range(tiles_x):
                a0, a1, a2, a3 = _gradient_column(m, at, plane)
                b0, b1, b2, b3 = _gradient_column(m, at + plane, plane)
                c0, c1, c2, c3 = _gradient_column(m, at + 2 * plane, plane)
                d0, d1, d2, d3 = _gradient_column(m, at + 3 * plane, plane)
                _add_column(dx, to, row, p0 + a0, p1 + a1, p2 + a2, p3 + a3)
                _add_column(
                    dx, to + channels, row,
                    q0 + (b0 - c0 + d0), q1 + (b1 - c1 + d1), q2 + (b2 - c2 + d2), q3 + (b3 - c3 + d3),
                )  # fmt: skip
                p0, p1, p2, p3 = b0 + c0 - a0, b1 + c1 - a1, b2 + c2 - a2, b3 + c3 - a3
                q0, q1, q2, q3 = zero - d0, zero - d1, zero - d2, zero - d3
                at += channels
                to += 2 * channels
            _add_column(dx, to, row, p0, p1, p2, p3)
            _add_column(dx, to + channels, row, q0, q1, q2, q3)


@njit
def _gradient_column(m, at, plane):
    a, b, c, d = load(m, at), load(m, at + 4 * plane), load(m, at + 8 * plane), load(m, at + 12 * plane)
    return a, b - c + d, b + c - a, splat(np.float32(0)) - d


@njit
def _add_column(dx, to, row, a, b, c, d):
    store(dx, to, load(dx, to) + a)
    store(dx, to + row, load(dx, to + row) + b)
    store(dx, to + 2 * row, load(dx, to + 2 * row) + c)
    store(dx, to + 3 * row, load(dx, to + 3 * row) + d)
