"""Winograd's minimal filtering F(4×4, 3×3), on vectors of channels.

A 3×3 convolution computes each 4×4 tile of its output from a 6×6 tile of its padded input as

    y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A

with 36 multiplications where the definition takes 144. Summed over input channels the elementwise product ⊙
is a matrix product for each of the 36 positions: (tiles × input channels) · (input × output channels).
The gradients are the exact transposes of the same three maps:

    dU = (Bᵀ d B) ⊙ (A dy Aᵀ),   dg = Gᵀ dU G     (weights)
    dV = (G g Gᵀ) ⊙ (A dy Aᵀ),   dd = B dV Bᵀ     (input; tiles overlap by two pixels, which are added)

The algorithm is Toom and Cook's polynomial multiplication, evaluated at 0, ±5/8, ±3/2 and infinity. The
usual points, 0, ±1, ±2 and infinity, have powers further from one and twice the rounding error: relative to
float64, a convolution of 32 channels is off by 1.1e-6 (root mean square) with those and 5.7e-7 with these,
which are exact in binary as well.

A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv:1509.09308.
B. Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural
Networks", ACM TOMS 2020, arXiv:1803.10986.

Arrays are flat float32. Padded images are (4·th + 2, 4·tw + 2, C) for th × tw tiles, the image itself one
pixel in from the top left. Transformed tiles are (36, slots, C): a band of tile rows, with slots ≥ its
number of tiles.
"""

import numpy as np
from numba import njit

from srmnist.engine.cpu.simd import LANES, REGISTERS, fma, load, product_tile, splat, store

STEP = 4  # pixels of output that a tile advances by
_SIDE = 6  # pixels of input that a tile reads
POSITIONS = _SIDE * _SIDE

# Rows and vectors of the matrix products' tiles: twice TILE_ROWS rows of two vectors fill the registers and
# leave room for the two vectors and the scalar that feed them. 28×28 pixels are 7×7 tiles.
TILE_ROWS = 7 if REGISTERS == 32 else 3
_GRADIENT_ROWS = 8 if REGISTERS == 32 else 4


def panel_width(channels: int) -> int:
    """Columns of a matrix product done at a time: U and dU are (36, panels, rows, panel_width)."""
    return min(channels, 2 * LANES)


_A, _B = 5 / 8, 3 / 2


def _filter_transform() -> np.ndarray:
    """G: a filter as a polynomial at the six points, divided by what Bᵀ leaves out."""
    rows = [[1 / (_A * _B) ** 2, 0, 0]]
    for point, other in ((_A, _B), (-_A, _B), (_B, _A), (-_B, _A)):
        rows.append([point**power / (2 * point**2 * (point**2 - other**2)) for power in range(3)])
    return np.array([*rows, [0, 0, 1]])


# G ⊗ G takes the 9 elements of a filter, row by row, to the 36 of its transform.
_FILTER_TRANSFORM = np.kron(_filter_transform(), _filter_transform()).astype(np.float32).ravel()

# The constants of Bᵀ and A.
_a, _b = np.float32(_A), np.float32(_B)
_a2, _b2 = np.float32(_A**2), np.float32(_B**2)
_a3, _b3 = np.float32(_A**3), np.float32(_B**3)
_minus_a2, _minus_b2 = np.float32(-(_A**2)), np.float32(-(_B**2))
_a2b2, _minus_a2_b2 = np.float32(_A**2 * _B**2), np.float32(-(_A**2) - _B**2)


@njit
def _times(a, factor):
    return a * splat(factor)


@njit
def _plus(a, b, factor):
    """a + factor · b."""
    return fma(b, splat(factor), a)


@njit
def _evaluate_input(d0, d1, d2, d3, d4, d5):
    """Bᵀ d."""
    even_a, odd_a = _plus(d4, d2, _minus_b2), _times(_plus(d3, d1, _minus_b2), _a)
    even_b, odd_b = _plus(d4, d2, _minus_a2), _times(_plus(d3, d1, _minus_a2), _b)
    return (
        _plus(_plus(d4, d2, _minus_a2_b2), d0, _a2b2),
        even_a + odd_a,
        even_a - odd_a,
        even_b + odd_b,
        even_b - odd_b,
        _plus(_plus(d5, d3, _minus_a2_b2), d1, _a2b2),
    )


@njit
def _evaluate_input_transposed(v0, v1, v2, v3, v4, v5):
    """B v."""
    even_a, odd_a = v1 + v2, _times(v1 - v2, _a)
    even_b, odd_b = v3 + v4, _times(v3 - v4, _b)
    return (
        _times(v0, _a2b2),
        _plus(_plus(_times(v5, _a2b2), odd_a, _minus_b2), odd_b, _minus_a2),
        _plus(_plus(_times(v0, _minus_a2_b2), even_a, _minus_b2), even_b, _minus_a2),
        _plus(odd_a + odd_b, v5, _minus_a2_b2),
        v0 + even_a + even_b,
        v5,
    )


@njit
def _interpolate(m0, m1, m2, m3, m4, m5):
    """Aᵀ m."""
    even_a, odd_a = m1 + m2, m1 - m2
    even_b, odd_b = m3 + m4, m3 - m4
    return (
        m0 + even_a + even_b,
        _plus(_times(odd_a, _a), odd_b, _b),
        _plus(_times(even_a, _a2), even_b, _b2),
        _plus(_plus(m5, odd_a, _a3), odd_b, _b3),
    )


@njit
def _interpolate_transposed(y0, y1, y2, y3):
    """A y."""
    even_a, odd_a = _plus(y0, y2, _a2), _plus(_times(y1, _a), y3, _a3)
    even_b, odd_b = _plus(y0, y2, _b2), _plus(_times(y1, _b), y3, _b3)
    return y0, even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, y3


@njit
def _six(x, at, stride):
    return (
        load(x, at), load(x, at + stride), load(x, at + 2 * stride),
        load(x, at + 3 * stride), load(x, at + 4 * stride), load(x, at + 5 * stride),
    )  # fmt: skip


@njit
def _store_six(x, at, stride, values):
    v0, v1, v2, v3, v4, v5 = values
    store(x, at, v0)
    store(x, at + stride, v1)
    store(x, at + 2 * stride, v2)
    store(x, at + 3 * stride, v3)
    store(x, at + 4 * stride, v4)
    store(x, at + 5 * stride, v5)


@njit
def transform_filters(taps, filters, u):
    """U = G g Gᵀ of many filters at once: `taps` (9, filters) → `u` (36, filters)."""
    for f in range(0, filters, LANES):
        for position in range(POSITIONS):
            value = splat(np.float32(0))
            for tap in range(9):
                value = fma(
                    splat(_FILTER_TRANSFORM[9 * position + tap]), load(taps, tap * filters + f), value
                )
            store(u, position * filters + f, value)


@njit
def transform_filter_gradient(du, parts, filters, dw):
    """dg = Gᵀ dU G of many filters at once: the sum of `du` (parts, 36, filters) → `dw` (9, filters)."""
    for f in range(0, filters, LANES):
        for tap in range(9):
            store(dw, tap * filters + f, splat(np.float32(0)))
        for position in range(POSITIONS):
            value = load(du, position * filters + f)
            for part in range(1, parts):
                value = value + load(du, (part * POSITIONS + position) * filters + f)
            for tap in range(9):
                at = tap * filters + f
                store(dw, at, fma(splat(_FILTER_TRANSFORM[9 * position + tap]), value, load(dw, at)))


@njit
def transform_input(x, width, channels, first_row, last_row, tiles_x, v, slots, lines):
    """V = Bᵀ d B of the tiles in rows `first_row` to `last_row` of a padded image `x` of that width.

    `lines` is scratch for one row of tiles and one vector of channels, 6 · width vectors.
    """
    row, plane = width * channels, slots * channels
    for c in range(0, channels, LANES):
        to = c
        for ty in range(first_row, last_row):
            at = STEP * ty * row + c
            for column in range(width):
                d0, d1, d2, d3, d4, d5 = _six(x, at, row)
                _store_six(lines, column * LANES, width * LANES, _evaluate_input(d0, d1, d2, d3, d4, d5))
                at += channels
            for tx in range(tiles_x):
                for line in range(_SIDE):
                    d0, d1, d2, d3, d4, d5 = _six(lines, (line * width + STEP * tx) * LANES, LANES)
                    values = _evaluate_input(d0, d1, d2, d3, d4, d5)
                    _store_six(v, to + _SIDE * line * plane, plane, values)
                to += channels


def _make_multiply(inputs, outputs):
    """`multiply` for one shape: with constant strides the inner loop has no address to compute."""
    width = panel_width(outputs)
    strides = {"a_row": inputs, "a_depth": 1, "b_depth": width, "c_row": outputs}
    double = product_tile(2 * TILE_ROWS, width // LANES, **strides)
    single = product_tile(TILE_ROWS, width // LANES, **strides)

    @njit
    def multiply(v, u, m, slots):
        for position in range(POSITIONS):
            for j in range(0, outputs, width):
                at_u = (position * outputs + j) * inputs
                for i in range(0, slots, 2 * TILE_ROWS):
                    at_v, to = (position * slots + i) * inputs, (position * slots + i) * outputs + j
                    if i + 2 * TILE_ROWS <= slots:
                        double(v, at_v, u, at_u, m, to, inputs)
                    else:
                        single(v, at_v, u, at_u, m, to, inputs)

    return multiply


def _make_accumulate(inputs, outputs):
    """`accumulate_weight_gradient` for one shape."""
    width = panel_width(outputs)
    tile = product_tile(
        _GRADIENT_ROWS, width // LANES, a_row=1, a_depth=inputs, b_depth=outputs, c_row=width, accumulate=True
    )

    @njit
    def accumulate(v, z, du, slots, tiles):
        for position in range(POSITIONS):
            at_v, at_z = position * slots * inputs, position * slots * outputs
            for j in range(0, outputs, width):
                to = (position * outputs + j) * inputs
                for i in range(0, inputs, _GRADIENT_ROWS):
                    tile(v, at_v + i, z, at_z + j, du, to + i * width, tiles)

    return accumulate


_multiply_16_32, _multiply_32_16 = _make_multiply(16, 32), _make_multiply(32, 16)
_multiply_32_64, _multiply_64_32 = _make_multiply(32, 64), _make_multiply(64, 32)
_accumulate_16_32, _accumulate_32_64 = _make_accumulate(16, 32), _make_accumulate(32, 64)


@njit
def multiply(v, u, m, slots, inputs, outputs):
    """M = V · U at each of the 36 positions: (slots, inputs) · (inputs, outputs)."""
    if inputs == 16:
        _multiply_16_32(v, u, m, slots)
    elif inputs == 64:
        _multiply_64_32(v, u, m, slots)
    elif outputs == 16:
        _multiply_32_16(v, u, m, slots)
    else:
        _multiply_32_64(v, u, m, slots)


@njit
def accumulate_weight_gradient(v, z, du, slots, tiles, inputs):
    """dU += Vᵀ · Z at each of the 36 positions: (inputs, tiles) · (tiles, 2 · inputs)."""
    if inputs == 16:
        _accumulate_16_32(v, z, du, slots, tiles)
    else:
        _accumulate_32_64(v, z, du, slots, tiles)


@njit
def transform_output(m, at, plane, lines, out, to, row, column):
    """y = Aᵀ m A of one tile and one vector of channels; its pixels lie `row` and `column` apart."""
    for x in range(_SIDE):
        m0, m1, m2, m3, m4, m5 = _six(m, at + x * plane, _SIDE * plane)
        y0, y1, y2, y3 = _interpolate(m0, m1, m2, m3, m4, m5)
        store(lines, x * LANES, y0)
        store(lines, (_SIDE + x) * LANES, y1)
        store(lines, (2 * _SIDE + x) * LANES, y2)
        store(lines, (3 * _SIDE + x) * LANES, y3)
    for y in range(STEP):
        m0, m1, m2, m3, m4, m5 = _six(lines, _SIDE * y * LANES, LANES)
        y0, y1, y2, y3 = _interpolate(m0, m1, m2, m3, m4, m5)
        store(out, to, y0)
        store(out, to + column, y1)
        store(out, to + 2 * column, y2)
        store(out, to + 3 * column, y3)
        to += row


@njit
def transform_gradient_column(column, lines, y0, y1, y2, y3):
    """A dy, for one column of a tile's gradient dy and one vector of channels: the first half of A dy Aᵀ."""
    _store_six(lines, column * LANES, STEP * LANES, _interpolate_transposed(y0, y1, y2, y3))


@njit
def transform_gradient_rows(lines, z, to, plane):
    """Z = (A dy) Aᵀ of one tile and one vector of channels: the second half."""
    for line in range(_SIDE):
        at = STEP * line * LANES
        y0, y1 = load(lines, at), load(lines, at + LANES)
        y2, y3 = load(lines, at + 2 * LANES), load(lines, at + 3 * LANES)
        _store_six(z, to + _SIDE * line * plane, plane, _interpolate_transposed(y0, y1, y2, y3))


@njit
def add_input_gradient(m, slots, width, channels, first_row, last_row, tiles_x, dx, lines):
    """dx += B m Bᵀ for the tiles in rows `first_row` to `last_row` of a padded image `dx` of that width.

    `lines` is scratch as in `transform_input`.
    """
    row, plane = width * channels, slots * channels
    zero = splat(np.float32(0))
    for c in range(0, channels, LANES):
        start = c
        for ty in range(first_row, last_row):
            for line in range(_SIDE):
                at, to = start + _SIDE * line * plane, line * width * LANES
                # The two right columns of a tile are the left ones of the next; they stay in registers.
                p = q = zero
                for _tile in range(tiles_x):
                    v0, v1, v2, v3, v4, v5 = _six(m, at, plane)
                    d0, d1, d2, d3, d4, d5 = _evaluate_input_transposed(v0, v1, v2, v3, v4, v5)
                    store(lines, to, p + d0)
                    store(lines, to + LANES, q + d1)
                    store(lines, to + 2 * LANES, d2)
                    store(lines, to + 3 * LANES, d3)
                    p, q = d4, d5
                    at += channels
                    to += STEP * LANES
                store(lines, to, p)
                store(lines, to + LANES, q)
            start += tiles_x * channels
            to = STEP * ty * row + c
            for column in range(width):
                v0, v1, v2, v3, v4, v5 = _six(lines, column * LANES, width * LANES)
                d0, d1, d2, d3, d4, d5 = _evaluate_input_transposed(v0, v1, v2, v3, v4, v5)
                x0, x1, x2, x3, x4, x5 = _six(dx, to, row)
                _store_six(dx, to, row, (x0 + d0, x1 + d1, x2 + d2, x3 + d3, x4 + d4, x5 + d5))
                to += channels
