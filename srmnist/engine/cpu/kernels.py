"""Convolution between many channels, normalisation, and their gradients for one image.

Activations are flat float32, (H, W, C) with channels last, and begin at an offset ``start``. A padded image
has a zero border: the image itself begins one row and one pixel in (`padded_geometry` says how wide it is).
``scale`` and ``shift`` are a batch normalisation as one multiplication and one addition for each channel.
"""

import numpy as np
from numba import njit

from srmnist.engine.cpu import winograd
from srmnist.engine.cpu.simd import LANES, fma, load, load_three, splat, store, where_positive

# A band of tile rows holds about this many tiles: what Winograd's algorithm makes of a band then fits the
# L2 cache beside the weights.
_BAND = 14
# Channels of the widest layer.
MOST_CHANNELS = 64


@njit
def padded_geometry(height, width):
    """Width and number of pixels of a padded image, which holds whole tiles."""
    tiles_y, tiles_x = -(-height // winograd.STEP), -(-width // winograd.STEP)
    padded_width = winograd.STEP * tiles_x + 2
    return padded_width, (winograd.STEP * tiles_y + 2) * padded_width


@njit
def _band_geometry(height, width):
    """Tiles down and across, tile rows in a band, slots for a band's tiles."""
    tiles_y, tiles_x = -(-height // winograd.STEP), -(-width // winograd.STEP)
    rows = min(tiles_y, max(1, _BAND // tiles_x))
    return tiles_y, tiles_x, rows, -(-rows * tiles_x // winograd.TILE_ROWS) * winograd.TILE_ROWS


@njit
def pad(image, start, height, width, padded, padded_width):
    """Copy a one-channel image into a padded one."""
    for y in range(height):
        to = (y + 1) * padded_width + 1
        at = start + y * width
        padded[to : to + width] = image[at : at + width]


@njit
def pad_activation(a, start, height, width, channels, scale, shift, padded, padded_width):
    """relu(a · scale + shift) of one image, into a padded one."""
    for c in range(0, channels, LANES):
        m, s = load(scale, c), load(shift, c)
        at = start + c
        for y in range(height):
            to = ((y + 1) * padded_width + 1) * channels + c
            for _ in range(width):
                h = fma(load(a, at), m, s)
                store(padded, to, where_positive(h, h))
                at += channels
                to += channels


@njit
def convolve(padded, height, width, inputs, outputs, u, band, a, start):
    """Convolve a padded image with transformed weights `u`; `band` is scratch of `band_size`."""
    padded_width = padded_geometry(height, width)[0]
    tiles_y, tiles_x, rows, slots = _band_geometry(height, width)
    v, m, _, lines, tile = _divide(band, slots, padded_width)
    for first in range(0, tiles_y, rows):
        last = min(first + rows, tiles_y)
        winograd.transform_input(padded, padded_width, inputs, first, last, tiles_x, v, slots, lines)
        winograd.multiply(v, u, m, slots, inputs, outputs)
        for c in range(0, outputs, LANES):
            at = c
            for ty in range(first, last):
                for tx in range(tiles_x):
                    to = start + winograd.STEP * (ty * width + tx) * outputs + c
                    down = min(winograd.STEP, height - winograd.STEP * ty)
                    across = min(winograd.STEP, width - winograd.STEP * tx)
                    if down == winograd.STEP and across == winograd.STEP:
                        winograd.transform_output(
                            m, at, slots * outputs, lines, a, to, width * outputs, outputs
                        )
                    else:
                        _transform_cut_output(
                            m, at, slots * outputs, lines, tile, a, to, width, outputs, down, across
                        )
                    at += outputs


@njit
def _transform_cut_output(m, at, plane, lines, tile, a, to, width, outputs, down, across):
    """`winograd.transform_output` of a tile that reaches over the image's edge."""
    winograd.transform_output(m, at, plane, lines, tile, 0, winograd.STEP * LANES, LANES)
    for y in range(down):
        for x in range(across):
            pixel = load(tile, (winograd.STEP * y + x) * LANES)
            store(a, to + (y * width + x) * outputs, pixel)


@njit
def convolve_gradient(
    padded, height, width, inputs, outputs, u, band, g, g_start, a, a_start, norm, du, dx
):  # fmt: skip
    """Gradients of `convolve` and of the normalisation and ReLU after it, for one image.

    The gradient arrives at the ReLU's output as `g`; `norm` (5, outputs) takes it to the convolution's
    output as ``norm[0] · g + norm[1] · a + norm[2]``, with g zero where ``a · norm[3] + norm[4]`` is not
    positive. Adds to `du` the gradient of the transformed weights, and to `dx` that of the padded input;
    `u` are the weights transformed and transposed.
    """
    padded_width = padded_geometry(height, width)[0]
    tiles_y, tiles_x, rows, slots = _band_geometry(height, width)
    v, z, m, lines, _ = _divide(band, slots, padded_width)
    row = width * outputs
    zero = splat(np.float32(0))
    for first in range(0, tiles_y, rows):
        last = min(first + rows, tiles_y)
        for c in range(0, outputs, LANES):
            n0, n1, n2 = load_three(norm, c, outputs)
            n3, n4 = load(norm, 3 * outputs + c), load(norm, 4 * outputs + c)
            to = c
            for ty in range(first, last):
                down = height - winograd.STEP * ty
                for tx in range(tiles_x):
                    at = winograd.STEP * (ty * width + tx) * outputs + c
                    across = width - winograd.STEP * tx
                    for x in range(winograd.STEP):
                        y0 = y1 = y2 = y3 = zero
                        if x < across:
                            p, q = g_start + at, a_start + at
                            y0 = _unnormalise(g, p, a, q, n0, n1, n2, n3, n4)
                            if down > 1:
                                y1 = _unnormalise(g, p + row, a, q + row, n0, n1, n2, n3, n4)
                            if down > 2:
                                y2 = _unnormalise(g, p + 2 * row, a, q + 2 * row, n0, n1, n2, n3, n4)
                            if down > 3:
                                y3 = _unnormalise(g, p + 3 * row, a, q + 3 * row, n0, n1, n2, n3, n4)
                        winograd.transform_gradient_column(x, lines, y0, y1, y2, y3)
                        at += outputs
                    winograd.transform_gradient_rows(lines, z, to, slots * outputs)
                    to += outputs
        winograd.transform_input(padded, padded_width, inputs, first, last, tiles_x, v, slots, lines)
        tiles = (last - first) * tiles_x
        winograd.accumulate_weight_gradient(v, z, du, slots, tiles, inputs)
        winograd.multiply(z, u, m, slots, outputs, inputs)
        winograd.add_input_gradient(m, slots, padded_width, inputs, first, last, tiles_x, dx, lines)


@njit
def _divide(band, slots, padded_width):
    """Scratch for a band, divided: V, Z or M, M, the transforms' lines, and a tile."""
    size = winograd.POSITIONS * slots * MOST_CHANNELS
    lines = 3 * size + 6 * padded_width * LANES
    return band[:size], band[size : 2 * size], band[2 * size : 3 * size], band[3 * size : lines], band[lines:]


@njit
def band_size(height, width):
    """Floats of scratch that `convolve` and `convolve_gradient` need for a band of tiles."""
    slots = _band_geometry(height, width)[3]
    vectors = 6 * padded_geometry(height, width)[0] + winograd.STEP**2
    return 3 * winograd.POSITIONS * slots * MOST_CHANNELS + vectors * LANES


@njit
def _unnormalise(g, at_g, a, at_a, n0, n1, n2, n3, n4):
    activation = load(a, at_a)
    gradient = where_positive(fma(activation, n3, n4), load(g, at_g))
    return fma(n0, gradient, fma(n1, activation, n2))


@njit
def unnormalise(g, g_start, a, a_start, pixels, channels, norm, out, out_start):
    """The gradient at a convolution's output from the one behind its ReLU, as in `convolve_gradient`."""
    for c in range(0, channels, LANES):
        n0, n1, n2 = load_three(norm, c, channels)
        n3, n4 = load(norm, 3 * channels + c), load(norm, 4 * channels + c)
        for p in range(c, pixels * channels, channels):
            store(out, out_start + p, _unnormalise(g, g_start + p, a, a_start + p, n0, n1, n2, n3, n4))


@njit
def statistics(a, start, pixels, channels, sums, to):
    """Of one image and each channel: a reference value k, Σ (a − k) and Σ (a − k)².

    Taken against the first pixel instead of zero, the variance does not drown in a large mean.
    """
    zero = splat(np.float32(0))
    for c in range(0, channels, LANES):
        k = load(a, start + c)
        s = t = q = r = zero
        at = start + c
        for _ in range(pixels // 2):
            d, e = load(a, at) - k, load(a, at + channels) - k
            s, t = s + d, t + e
            q, r = fma(d, d, q), fma(e, e, r)
            at += 2 * channels
        if pixels % 2:
            d = load(a, at) - k
            s, q = s + d, fma(d, d, q)
        store(sums, to + c, k)
        store(sums, to + channels + c, s + t)
        store(sums, to + 2 * channels + c, q + r)


@njit
def gradient_statistics(
    g, g_start, g_row, a, a_start, height, width, channels, norm, mean, out, out_start, sums, to
):
    """Let a gradient through a ReLU, and sum it for the normalisation before.

    Of one image: ``out`` is `g`, zero where ``a · norm[3] + norm[4]`` is not positive; for each channel the
    sums are Σ out and Σ out · (a − mean). Rows of `g` are `g_row` apart.
    """
    for c in range(0, channels, LANES):
        n3, n4, m = load(norm, 3 * channels + c), load(norm, 4 * channels + c), load(mean, c)
        s = q = splat(np.float32(0))
        p = c
        for y in range(height):
            at = g_start + y * g_row + c
            for _ in range(width):
                activation = load(a, a_start + p)
                gradient = where_positive(fma(activation, n3, n4), load(g, at))
                store(out, out_start + p, gradient)
                s, q = s + gradient, fma(gradient, activation - m, q)
                at += channels
                p += channels
        store(sums, to + c, s)
        store(sums, to + channels + c, q)
