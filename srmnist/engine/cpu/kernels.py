"""Convolution between many channels, normalisation, ReLU, and their gradients, each for one image.

Arrays are contiguous float32. An image is (H, W, C), channels last. A padded image has a border of zeros, and
the image begins one row and one pixel in (`geometry.padded_shape`). A batch normalisation is (3, C): its
factor, its summand, and the mean. U is the Winograd transform of a convolution's weights, as
`layouts.transformed` returns it.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from srmnist.engine.cpu import products, winograd
from srmnist.engine.cpu.geometry import STRIDE, Band, band_shape, ceil_divide, rows_of_products, scratch_sizes
from srmnist.engine.cpu.products import Ahead
from srmnist.engine.cpu.simd import LANES, fma, load, load_three, splat, store, where_positive


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
    _, _, size, lines = scratch_sizes(height, width)
    end = 3 * size + lines
    return Tiles(
        memory[:size],
        memory[size : 2 * size],
        memory[2 * size : 3 * size],
        memory[3 * size : end],
        memory[end:],
    )


@njit
def pad(image, padded):
    """Copy an image of one channel (H, W) into a padded one."""
    height, width = image.shape
    for y in range(height):
        padded[1 + y, 1 : 1 + width] = image[y]


@njit
def pad_rows(image, first, padded):
    """Copy the rows of an image of one channel (H, W) from `first` on into (PH, PW), after a zero column.

    Rows outside the image are zero.
    """
    height, width = image.shape
    for y in range(len(padded)):
        if 0 <= first + y < height:
            padded[y, 1 : 1 + width] = image[first + y]
        else:
            padded[y] = 0


@njit
def pad_activation(a, normalisation, padded):
    """Write ReLU(normalised `a`) of one image into a padded image."""
    height, width, channels = a.shape
    padded_width = padded.shape[1]
    for c in range(0, channels, LANES):
        scale, shift = load(normalisation, c), load(normalisation, channels + c)
        at = c
        for y in range(height):
            to = ((y + 1) * padded_width + 1) * channels + c
            for _ in range(width):
                h = fma(load(a, at), scale, shift)
                store(padded, to, where_positive(h, h))
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
    """Convolve a padded image; `out` is (H, W, C)."""
    height, width, outputs = out.shape
    inputs = padded.shape[2]
    rows, across, slots = band_shape(height, width)
    down = ceil_divide(height, STRIDE)
    for first in range(0, down, rows):
        band = Band(first, min(first + rows, down), across, slots)
        winograd.transform_input(padded, band, tiles.first, tiles.lines)
        pixels = STRIDE * rows * width
        ahead = Ahead(out, first // rows * pixels * outputs, pixels * outputs, True)
        products.multiply(tiles.first, u, tiles.second, slots, rows_of_products(band), inputs, outputs, ahead)
        _transform_outputs(tiles.second, band, tiles.lines, tiles.tile, out)


@njit
def _transform_outputs(m, band, lines, tile, out):
    """The output pixels of a band; a tile that reaches over the image's edge is cut."""
    height, width, channels = out.shape
    plane = band.slots * channels
    for c in range(0, channels, LANES):
        at = c
        for ty in range(band.first, band.last):
            for tx in range(band.across):
                to = STRIDE * (ty * width + tx) * channels + c
                down, across = min(STRIDE, height - STRIDE * ty), min(STRIDE, width - STRIDE * tx)
                if down == STRIDE and across == STRIDE:
                    winograd.transform_output(m, at, plane, lines, out, to, width * channels, channels)
                else:
                    winograd.transform_output(m, at, plane, lines, tile, 0, STRIDE * LANES, LANES)
                    for y in range(down):
                        for x in range(across):
                            pixel = load(tile, (STRIDE * y + x) * LANES)
                            store(out, to + (y * width + x) * channels, pixel)
                at += channels


@njit
def convolve_gradient(padded, u, tiles, g, a, norm, du, dx):
    """Gradients of `convolve`, and of the normalisation and the ReLU after it, for one image.

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
        winograd.transform_input(padded, band, v, lines)
        products.accumulate_weight_gradient(v, z, du, slots, (band.last - first) * across, inputs)
        pixels = STRIDE * rows * width  # of the next band, or of the next image's first
        ahead = Ahead(a, STRIDE * band.last * width * outputs, pixels * outputs, False)
        products.multiply(z, u, m, slots, rows_of_products(band), outputs, inputs, ahead)
        winograd.add_input_gradient(m, band, dx, lines)


@njit
def _transform_gradients(g, a, norm, band, lines, z):
    """Z = A dy Aᵀ of a band's tiles, where dy is the gradient of the convolution's output."""
    height, width, channels = g.shape
    row = width * channels
    zero = splat(np.float32(0))
    for c in range(0, channels, LANES):
        factors = load_three(norm, c, channels)
        scale, shift = load(norm, 3 * channels + c), load(norm, 4 * channels + c)
        to = c
        for ty in range(band.first, band.last):
            down = height - STRIDE * ty
            for tx in range(band.across):
                at = STRIDE * (ty * width + tx) * channels + c
                across = width - STRIDE * tx
                for x in range(STRIDE):
                    y0 = y1 = y2 = y3 = zero
                    if x < across:
                        y0 = _unnormalise(g, a, at, factors, scale, shift)
                        if down > 1:
                            y1 = _unnormalise(g, a, at + row, factors, scale, shift)
                        if down > 2:
                            y2 = _unnormalise(g, a, at + 2 * row, factors, scale, shift)
                        if down > 3:
                            y3 = _unnormalise(g, a, at + 3 * row, factors, scale, shift)
                    winograd.transform_gradient_column(x, lines, y0, y1, y2, y3)
                    at += channels
                winograd.transform_gradient_rows(lines, z, to, band.slots * channels)
                to += channels


@njit
def _unnormalise(g, a, at, factors, scale, shift):
    """The gradient of a convolution's output at one offset, see `convolve_gradient`."""
    by_g, by_a, constant = factors
    activation = load(a, at)
    gradient = where_positive(fma(activation, scale, shift), load(g, at))
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
        for at in range(c, height * width * channels, channels):
            store(out, at, _unnormalise(g, a, at, factors, scale, shift))


@njit
def statistics(a, sums):
    """Of each channel of an image: its first pixel k, Σ (a − k) and Σ (a − k)², as `sums` (3, C).

    Sums are taken relative to the first pixel, so a large mean does not swamp the variance.
    """
    height, width, channels = a.shape
    pixels = height * width
    zero = splat(np.float32(0))
    for c in range(0, channels, LANES):
        k = load(a, c)
        s = t = q = r = zero
        at = c
        for _ in range(pixels // 2):
            d, e = load(a, at) - k, load(a, at + channels) - k
            s, t = s + d, t + e
            q, r = fma(d, d, q), fma(e, e, r)
            at += 2 * channels
        if pixels % 2:
            d = load(a, at) - k
            s, q = s + d, fma(d, d, q)
        store(sums, c, k)
        store(sums, channels + c, s + t)
        store(sums, 2 * channels + c, q + r)


@njit
def gradient_statistics(dx, a, normalisation, out, sums):
    """Pass a gradient back through a ReLU, and sum it for the gradient of the normalisation before the ReLU.

    `dx` is the gradient of the padded image that `pad_activation` makes of `a`; `out` (H, W, C) is `dx`
    without the border, and zero where the ReLU was. Of each channel, `sums` (2, C) are Σ out and Σ out · (a −
    mean).
    """
    height, width, channels = a.shape
    padded_width = dx.shape[1]
    for c in range(0, channels, LANES):
        scale, shift, mean = load_three(normalisation, c, channels)
        s = q = splat(np.float32(0))
        p = c
        for y in range(height):
            at = ((y + 1) * padded_width + 1) * channels + c
            for _ in range(width):
                activation = load(a, p)
                gradient = where_positive(fma(activation, scale, shift), load(dx, at))
                store(out, p, gradient)
                s, q = s + gradient, fma(gradient, activation - mean, q)
                at += channels
                p += channels
        store(sums, c, s)
        store(sums, channels + c, q)
