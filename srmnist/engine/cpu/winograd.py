"""Winograd's minimal filtering F(4×4, 3×3), on vectors of channels.

A 3×3 convolution computes each 4×4 tile of its output from a 6×6 tile of its padded input as

    y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A

with 36 multiplications; the definition takes 144. The elementwise product ⊙, summed over the input channels,
is a matrix product at each of the 36 positions: (tiles × input channels) · (input × output channels), see
`products`. The gradients are the exact transposes of the same three maps:

    dU = (Bᵀ d B) ⊙ (A dy Aᵀ),   dg = Gᵀ dU G     (weights)
    dV = (G g Gᵀ) ⊙ (A dy Aᵀ),   dd = B dV Bᵀ     (input; tiles overlap by two pixels, which are added)

The algorithm is the polynomial multiplication of Toom and Cook, evaluated at the points 0, ±5/8, ±3/2 and
infinity. The usual points are 0, ±1, ±2 and infinity. Their powers are further from one, and the rounding
error is twice as large: relative to float64, a convolution of 32 channels has an error of 1.1e-6 (root mean
square) with the usual points and of 5.7e-7 with these. Binary numbers represent these exactly, too.

A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv:1509.09308.
B. Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural
Networks", ACM TOMS 2020, arXiv:1803.10986.

Arrays are contiguous float32. A padded image is (4·th + 2, 4·tw + 2, C) for th × tw tiles; the image begins
one row and one pixel in. Transformed tiles are (36, slots, C): those of one band of tile rows, see
`geometry.Band`.
"""

import numpy as np
from numba import njit

from srmnist.engine.cpu.geometry import POSITIONS, SIDE, STRIDE
from srmnist.engine.cpu.simd import LANES, fma, load, load_three, splat, store, store_three

_A, _B = 5 / 8, 3 / 2


def _filter_transform() -> np.ndarray:
    """G, (6, 3): evaluates a filter, as a polynomial, at the six points; Bᵀ leaves the divisors to it."""
    rows = [[1 / (_A * _B) ** 2, 0, 0]]
    for point, other in ((_A, _B), (-_A, _B), (_B, _A), (-_B, _A)):
        rows.append([point**power / (2 * point**2 * (point**2 - other**2)) for power in range(3)])
    return np.array([*rows, [0, 0, 1]])


# G ⊗ G, (36, 9): takes the 9 elements of a filter, row by row, to the 36 of its transform.
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
    """The vectors at six offsets, `stride` apart."""
    d0, d1, d2 = load_three(x, at, stride)
    d3, d4, d5 = load_three(x, at + 3 * stride, stride)
    return d0, d1, d2, d3, d4, d5


@njit
def _store_six(x, at, stride, values):
    v0, v1, v2, v3, v4, v5 = values
    store(x, at, v0)
    store(x, at + stride, v1)
    store(x, at + 2 * stride, v2)
    store(x, at + 3 * stride, v3)
    store(x, at + 4 * stride, v4)
    store(x, at + 5 * stride, v5)


_BLOCK = 128  # filters whose taps are in the L1 cache at a time; divides both layers' numbers of filters


@njit
def transform_filters(w, u):
    """U = G g Gᵀ of all filters: `w` (filters, 9) → `u` (36, filters)."""
    filters = len(w)
    taps = np.empty((9, _BLOCK), np.float32)
    for start in range(0, filters, _BLOCK):
        for f in range(_BLOCK):
            for tap in range(9):
                taps[tap, f] = w[start + f, tap]
        for position in range(POSITIONS):
            at = 9 * position
            for f in range(0, _BLOCK, LANES):
                value = splat(np.float32(0))
                value = _add_row_of_taps(value, at, *load_three(taps, f, _BLOCK))
                value = _add_row_of_taps(value, at + 3, *load_three(taps, 3 * _BLOCK + f, _BLOCK))
                value = _add_row_of_taps(value, at + 6, *load_three(taps, 6 * _BLOCK + f, _BLOCK))
                store(u, position * filters + start + f, value)


@njit
def _add_row_of_taps(value, at, g0, g1, g2):
    """Add three taps of a filter times the elements of the transform from `at` on."""
    value = fma(splat(_FILTER_TRANSFORM[at]), g0, value)
    value = fma(splat(_FILTER_TRANSFORM[at + 1]), g1, value)
    return fma(splat(_FILTER_TRANSFORM[at + 2]), g2, value)


@njit
def transform_filter_gradient(du, dw):
    """dg = Gᵀ dU G of all filters, summed: `du` (slices, 36, filters) → `dw` (9, filters).

    The sum over the slices replaces du[0]. It is a loop of its own, because it then reads memory in order.
    """
    slices, _, filters = du.shape
    if slices > 1:
        for f in range(0, POSITIONS * filters, LANES):
            value = load(du, f)
            for i in range(1, slices):
                value = value + load(du, i * POSITIONS * filters + f)
            store(du, f, value)
    zero = splat(np.float32(0))
    for f in range(0, filters, LANES):
        top = middle = bottom = (zero, zero, zero)
        for position in range(POSITIONS):
            value = load(du, position * filters + f)
            at = 9 * position
            top = _add_to_row_of_taps(*top, at, value)
            middle = _add_to_row_of_taps(*middle, at + 3, value)
            bottom = _add_to_row_of_taps(*bottom, at + 6, value)
        store_three(dw, f, filters, top)
        store_three(dw, 3 * filters + f, filters, middle)
        store_three(dw, 6 * filters + f, filters, bottom)


@njit
def _add_to_row_of_taps(g0, g1, g2, at, value):
    """The transpose of `_add_row_of_taps`."""
    return (
        fma(splat(_FILTER_TRANSFORM[at]), value, g0),
        fma(splat(_FILTER_TRANSFORM[at + 1]), value, g1),
        fma(splat(_FILTER_TRANSFORM[at + 2]), value, g2),
    )


@njit
def transform_input(x, band, v, lines):
    """V = Bᵀ d B of a band's tiles: padded image `x` (H, W, C) → `v` (36, slots, C).

    `lines` is scratch memory for one row of tiles and one vector of channels, 6 · W vectors.
    """
    _, width, channels = x.shape
    row, plane = width * channels, band.slots * channels
    for c in range(0, channels, LANES):
        to = c
        for ty in range(band.first, band.last):
            at = STRIDE * ty * row + c
            for column in range(width):
                d0, d1, d2, d3, d4, d5 = _six(x, at, row)
                _store_six(lines, column * LANES, width * LANES, _evaluate_input(d0, d1, d2, d3, d4, d5))
                at += channels
            for tx in range(band.across):
                for line in range(SIDE):
                    d0, d1, d2, d3, d4, d5 = _six(lines, (line * width + STRIDE * tx) * LANES, LANES)
                    values = _evaluate_input(d0, d1, d2, d3, d4, d5)
                    _store_six(v, to + SIDE * line * plane, plane, values)
                to += channels


@njit
def transform_output(m, at, plane, lines, out, to, row, column):
    """y = Aᵀ m A of one tile, one vector of channels. Rows are `row` floats apart, pixels `column` floats."""
    for x in range(SIDE):
        m0, m1, m2, m3, m4, m5 = _six(m, at + x * plane, SIDE * plane)
        y0, y1, y2, y3 = _interpolate(m0, m1, m2, m3, m4, m5)
        store(lines, x * LANES, y0)
        store(lines, (SIDE + x) * LANES, y1)
        store(lines, (2 * SIDE + x) * LANES, y2)
        store(lines, (3 * SIDE + x) * LANES, y3)
    for y in range(STRIDE):
        m0, m1, m2, m3, m4, m5 = _six(lines, SIDE * y * LANES, LANES)
        y0, y1, y2, y3 = _interpolate(m0, m1, m2, m3, m4, m5)
        store(out, to, y0)
        store(out, to + column, y1)
        store(out, to + 2 * column, y2)
        store(out, to + 3 * column, y3)
        to += row


@njit
def transform_gradient_column(column, lines, y0, y1, y2, y3):
    """A dy of one column of a tile's gradient, one vector of channels: the first half of A dy Aᵀ."""
    _store_six(lines, column * LANES, STRIDE * LANES, _interpolate_transposed(y0, y1, y2, y3))


@njit
def transform_gradient_rows(lines, z, to, plane):
    """Z = (A dy) Aᵀ of one tile, one vector of channels: the second half of A dy Aᵀ."""
    for line in range(SIDE):
        at = STRIDE * line * LANES
        y0, y1 = load(lines, at), load(lines, at + LANES)
        y2, y3 = load(lines, at + 2 * LANES), load(lines, at + 3 * LANES)
        _store_six(z, to + SIDE * line * plane, plane, _interpolate_transposed(y0, y1, y2, y3))


@njit
def add_input_gradient(m, band, dx, lines):
    """dx += B m Bᵀ of a band's tiles: `m` (36, slots, C) → padded image `dx` (H, W, C).

    `lines` is scratch memory as in `transform_input`.
    """
    _, width, channels = dx.shape
    plane = band.slots * channels
    for c in range(0, channels, LANES):
        start = c
        for ty in range(band.first, band.last):
            for line in range(SIDE):
                _spread_line(
                    m, start + SIDE * line * plane, plane, channels, band.across, lines, line * width
                )
            start += band.across * channels
            _add_lines(lines, dx, ty, c)


@njit
def _spread_line(m, at, plane, channels, across, lines, to):
    """m Bᵀ of one line of a row of tiles, one vector of channels. Neighbours overlap by two pixels."""
    to *= LANES
    p = q = splat(np.float32(0))  # what the tile before has for the first two pixels of the next
    for _ in range(across):
        v0, v1, v2, v3, v4, v5 = _six(m, at, plane)
        d0, d1, d2, d3, d4, d5 = _evaluate_input_transposed(v0, v1, v2, v3, v4, v5)
        store(lines, to, p + d0)
        store(lines, to + LANES, q + d1)
        store(lines, to + 2 * LANES, d2)
        store(lines, to + 3 * LANES, d3)
        p, q = d4, d5
        at += channels
        to += STRIDE * LANES
    store(lines, to, p)
    store(lines, to + LANES, q)


@njit
def _add_lines(lines, dx, ty, c):
    """Add B times the six lines of row `ty` of tiles to a padded image, for the vector of channels at `c`."""
    _, width, channels = dx.shape
    row = width * channels
    to = STRIDE * ty * row + c
    for column in range(width):
        v0, v1, v2, v3, v4, v5 = _six(lines, column * LANES, width * LANES)
        d0, d1, d2, d3, d4, d5 = _evaluate_input_transposed(v0, v1, v2, v3, v4, v5)
        x0, x1, x2, x3, x4, x5 = _six(dx, to, row)
        _store_six(dx, to, row, (x0 + d0, x1 + d1, x2 + d2, x3 + d3, x4 + d4, x5 + d5))
        to += channels
