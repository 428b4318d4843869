"""Convolution between many channels, normalisation, ReLU, and their gradients, each for a block of an image.

Arrays are float32. A block is (H, W, C), channels last, a view of an image: its rows are contiguous, and
`simd.row_of` floats apart. All else is contiguous. A padded block has a border, of the pixels around it or of
zeros, and begins one row and one pixel in (`geometry.padded_shape`). A batch normalisation is (3, C): its
factor, its summand, and the mean. U is the Winograd transform of a convolution's weights, as
`layouts.transformed` returns it.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from srmnist.engine.cpu import products, winograd
from srmnist.engine.cpu.geometry import STRIDE, Band, band_shape, band_sizes, ceil_divide, rows_of_products
from srmnist.engine.cpu.products import Ahead
from srmnist.engine.cpu.simd import LANES, fma, load, load_three, row_of, splat, store, where_positive


class Tiles(NamedTuple):
    """Scratch memory for one band: three arrays of transformed tiles, a transform's lines, and one tile."""

    first: np.ndarray
    second: np.ndarray
    third: np.ndarray
    lines: np.ndarray
    tile: np.ndarray


@njit
def divide_band(memory, height, width):
    """Divide a band's scratch memory."""
    size, lines = band_sizes(height, width)
    end = 3 * size + lines
    return Tiles(
        memory[:size],
        memory[size : 2 * size],
        memory[2 * size : 3 * size],
        memory[3 * size : end],
        memory[end:],
    )


@njit
def copy(image, out):
    """Copy a block of one channel (H, W) to its place in a padded one."""
    height, width = image.shape
    for y in range(height):
        for x in range(width):  # to assign slices would take two seconds more to compile
            out[y, x] = image[y, x]


@njit
def pad_rows(image, first, padded):
    """Copy the rows of an image of one channel (H, W) from `first` on into (PH, PW), after a zero column.

    Rows outside the image are zero. The columns around it are left as they are.
    """
    height, width = image.shape
    for y in range(len(padded)):
        inside = 0 <= first + y < height
        for x in range(width):
            padded[y, 1 + x] = image[first + y, x] if inside else np.float32(0)


@njit
def activate(a, normalisation, out):
    """Write ReLU(normalised `a`) to `out`, the block's place in a padded one."""
    height, width, channels = a.shape
    for c in range(0, channels, LANES):
        scale, shift = load(normalisation, c), load(normalisation, channels + c)
        for y in range(height):
            at, to = y * row_of(a) + c, y * row_of(out) + c
            for _ in range(width):
                h = fma(load(a, at), scale, shift)
                store(out, to, where_positive(h, h))
                at += channels
                to += channels


@njit
def clear(padded, first, last):
    """Fill the rows `first` to `last` of a padded image with zeros."""
    _, width, channels = padded.shape
    for at in range(first * width * channels, last * width * channels, LANES):
        store(padded, at, splat(np.float32(0)))


@njit
def move_up(padded, rows):
    """Move a padded image up by so many rows; the last rows keep what they have."""
    height, width, channels = padded.shape
    row = width * channels
    for at in range(0, (height - rows) * row, LANES):
        store(padded, at, load(padded, at + rows * row))


@njit
def convolve(padded, u, tiles, out):
    """Convolve a padded block; `out` is (H, W, C)."""
    height, width, outputs = out.shape
    inputs = padded.shape[2]
    rows, across, slots = band_shape(height, width)
    down = ceil_divide(height, STRIDE)
    for first in range(0, down, rows):
        band = Band(first, min(first + rows, down), across, slots)
        winograd.transform_input(padded, band, tiles.first, tiles.lines)
        ahead = Ahead(out, STRIDE * first * row_of(out), STRIDE * rows, width * outputs, row_of(out), True)
        products.multiply(tiles.first, u, tiles.second, slots, rows_of_products(band), inputs, outputs, ahead)
        _transform_outputs(tiles.second, band, tiles.lines, tiles.tile, out)


@njit
def _transform_outputs(m, band, lines, tile, out):
    """The output pixels of a band; a tile that reaches over the image's edge is cut."""
    height, width, channels = out.shape
    row, plane = row_of(out), band.slots * channels
    for c in range(0, channels, LANES):
        at = c
        for ty in range(band.first, band.last):
            for tx in range(band.across):
                to = STRIDE * (ty * row + tx * channels) + c
                down, across = min(STRIDE, height - STRIDE * ty), min(STRIDE, width - STRIDE * tx)
                if down == STRIDE and across == STRIDE:
                    winograd.transform_output(m, at, plane, lines, out, to, row, channels)
                else:
                    winograd.transform_output(m, at, plane, lines, tile, 0, STRIDE * LANES, LANES)
                    for y in range(down):
                        for x in range(across):
                            pixel = load(tile, (STRIDE * y + x) * LANES)
                            store(out, to + y * row + x * channels, pixel)
                at += channels


@njit
def convolve_gradient(padded, u, tiles, g, a, norm, above, before, du, dx):
    """Gradients of `convolve`, and of the normalisation and the ReLU after it, for one block.

    Parameters
    ----------
    padded : (PH, PW, inputs)
        The convolution's input.
    u
        The transform of the weights, transposed.
    tiles : Tiles
    g, a : (H, W, outputs)
        The gradient of the ReLU's output, and the convolution's output.
    norm : (5, outputs)
        The gradient of the convolution's output is ``norm[0] · g + norm[1] · a + norm[2]``, where g counts as
        zero unless ``a · norm[3] + norm[4]`` is positive.
    above, before : int, 0 or 1
        Rows of tiles at the top, and tiles at the left of each row, that belong to other blocks. They count
        for `dx`, not for `du`. Where there are tiles at the left, a band must be a single row.
    du
        The gradient of the transformed weights is added to it.
    dx : (PH, PW, inputs)
        The gradient of `padded` is added to it.
    """
    height, width, outputs = g.shape
    inputs = padded.shape[2]
    rows, across, slots = band_shape(height, width)
    down = ceil_divide(height, STRIDE)
    for first in range(0, down, rows):
        band = Band(first, min(first + rows, down), across, slots)
        v, z, m, lines = tiles.first, tiles.second, tiles.third, tiles.lines
        _transform_gradients(g, a, norm, band, lines, z)
        others = across if first < above else before
        own = (band.last - first) * across - others
        if own > 0:
            winograd.transform_input(padded, band, v, lines)
            products.accumulate_weight_gradient(v, z, du, slots, others, own, inputs)
        # Of the next band, or of the next image's first.
        ahead = Ahead(a, STRIDE * band.last * row_of(a), STRIDE * rows, width * outputs, row_of(a), False)
        products.multiply(z, u, m, slots, rows_of_products(band), outputs, inputs, ahead)
        winograd.add_input_gradient(m, band, dx, lines)


@njit
def _transform_gradients(g, a, norm, band, lines, z):
    """Z = A dy Aᵀ of a band's tiles, where dy is the gradient of the convolution's output."""
    height, width, channels = g.shape
    row_g, row_a = row_of(g), row_of(a)
    zero = splat(np.float32(0))
    for c in range(0, channels, LANES):
        factors = load_three(norm, c, channels)
        scale, shift = load(norm, 3 * channels + c), load(norm, 4 * channels + c)
        to = c
        for ty in range(band.first, band.last):
            down = height - STRIDE * ty
            for tx in range(band.across):
                at_g = STRIDE * (ty * row_g + tx * channels) + c
                at_a = STRIDE * (ty * row_a + tx * channels) + c
                across = width - STRIDE * tx
                for x in range(STRIDE):
                    y0 = y1 = y2 = y3 = zero
                    if x < across:
                        y0 = _unnormalise(g, at_g, a, at_a, factors, scale, shift)
                        if down > 1:
                            y1 = _unnormalise(g, at_g + row_g, a, at_a + row_a, factors, scale, shift)
                        if down > 2:
                            y2 = _unnormalise(g, at_g + 2 * row_g, a, at_a + 2 * row_a, factors, scale, shift)
                        if down > 3:
                            y3 = _unnormalise(g, at_g + 3 * row_g, a, at_a + 3 * row_a, factors, scale, shift)
                    winograd.transform_gradient_column(x, lines, y0, y1, y2, y3)
                    at_g += channels
                    at_a += channels
                winograd.transform_gradient_rows(lines, z, to, band.slots * channels)
                to += channels


@njit
def _unnormalise(g, at_g, a, at_a, factors, scale, shift):
    """The gradient of a convolution's output at one pixel, see `convolve_gradient`."""
    by_g, by_a, constant = factors
    activation = load(a, at_a)
    gradient = where_positive(fma(activation, scale, shift), load(g, at_g))
    return fma(by_g, gradient, fma(by_a, activation, constant))


@njit
def unnormalise(g, a, norm, out):
    """The gradient of a convolution's output (H, W, C), from the gradient `g` of the ReLU's output.

    `norm` is that of `convolve_gradient`.
    """
    height, width, channels = a.shape
    for c in range(0, channels, LANES):
        factors = load_three(norm, c, channels)
        scale, shift = load(norm, 3 * channels + c), load(norm, 4 * channels + c)
        for y in range(height):
            at_g, at_a, to = y * row_of(g) + c, y * row_of(a) + c, y * row_of(out) + c
            for _ in range(width):
                store(out, to, _unnormalise(g, at_g, a, at_a, factors, scale, shift))
                at_g += channels
                at_a += channels
                to += channels


@njit
def statistics(a, sums):
    """Of each channel of a block: its first pixel k, Σ (a − k) and Σ (a − k)², as `sums` (3, C).

    Sums are taken relative to the first pixel, so a large mean does not swamp the variance. Every second
    pixel has sums of its own: one addition need not wait for the other.
    """
    height, width, channels = a.shape
    zero = splat(np.float32(0))
    for c in range(0, channels, LANES):
        k = load(a, c)
        s = t = q = r = zero
        for y in range(height):
            at = y * row_of(a) + c
            for _ in range(width // 2):
                d, e = load(a, at) - k, load(a, at + channels) - k
                s, t = s + d, t + e
                q, r = fma(d, d, q), fma(e, e, r)
                at += 2 * channels
            if width % 2:
                d = load(a, at) - k
                s, t, q, r = t, s + d, r, fma(d, d, q)
        store(sums, c, k)
        store(sums, channels + c, s + t)
        store(sums, 2 * channels + c, q + r)


@njit
def gradient_statistics(dx, a, normalisation, out, sums):
    """Pass a gradient back through a ReLU, and sum it for the gradient of the normalisation before the ReLU.

    `dx` (H, W, C) is the gradient of what `activate` makes of `a`; `out` (H, W, C) is the same, but zero
    where the ReLU was. Of each channel, `sums` (2, C) are Σ out and Σ out · (a − mean).
    """
    height, width, channels = a.shape
    for c in range(0, channels, LANES):
        scale, shift, mean = load_three(normalisation, c, channels)
        s = q = splat(np.float32(0))
        for y in range(height):
            at, p, to = y * row_of(dx) + c, y * row_of(a) + c, y * row_of(out) + c
            for _ in range(width):
                activation = load(a, p)
                gradient = where_positive(fma(activation, scale, shift), load(dx, at))
                store(out, to, gradient)
                s, q = s + gradient, fma(gradient, activation - mean, q)
                at += channels
                p += channels
                to += channels
        store(sums, c, s)
        store(sums, channels + c, q)
