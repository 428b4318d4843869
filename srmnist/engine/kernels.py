"""Convolution, normalisation and their gradients for one image, on vectors of channels.

Activations are flat float32, (H, W, C) with channels last, and begin at an offset ``start``. A padded image
has a zero border: the image itself begins one row and one pixel in (`padded_geometry` says how wide it is).
``scale`` and ``shift`` are a batch normalisation as one multiplication and one addition for each channel.
"""

import numpy as np
from numba import njit

from srmnist.engine import winograd
from srmnist.engine.simd import LANES, fma, load, splat, store, total, where_positive

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
def spread(padded, padded_width, height, width, weights, channels, a, start):
    """Convolve a padded image of one channel into many, with `weights` (9, channels)."""
    for c in range(0, channels, LANES):
        w0, w1, w2 = _three(weights, c, channels)
        w3, w4, w5 = _three(weights, c + 3 * channels, channels)
        w6, w7, w8 = _three(weights, c + 6 * channels, channels)
        to = start + c
        for y in range(height):
            at = y * padded_width
            for _ in range(width):
                top = _row_of_taps(padded, at, w0, w1, w2)
                middle = _row_of_taps(padded, at + padded_width, w3, w4, w5)
                bottom = _row_of_taps(padded, at + 2 * padded_width, w6, w7, w8)
                store(a, to, top + middle + bottom)
                at += 1
                to += channels


@njit
def _three(weights, at, channels):
    return load(weights, at), load(weights, at + channels), load(weights, at + 2 * channels)


@njit
def _row_of_taps(padded, at, a, b, c):
    return fma(splat(padded[at + 2]), c, fma(splat(padded[at + 1]), b, splat(padded[at]) * a))


@njit
def spread_gradient(padded, padded_width, height, width, g, start, channels, dw):
    """Add one image's gradient of `spread`'s weights to `dw`, (9, channels)."""
    for c in range(0, channels, LANES):
        for tap in range(3):
            at_w = tap * 3 * channels + c
            d0, d1, d2 = _three(dw, at_w, channels)
            at = start + c
            for y in range(height):
                p = (y + tap) * padded_width
                for _ in range(width):
                    gradient = load(g, at)
                    d0 = fma(splat(padded[p]), gradient, d0)
                    d1 = fma(splat(padded[p + 1]), gradient, d1)
                    d2 = fma(splat(padded[p + 2]), gradient, d2)
                    p += 1
                    at += channels
            store(dw, at_w, d0)
            store(dw, at_w + channels, d1)
            store(dw, at_w + 2 * channels, d2)


@njit
def gather(a, start, height, width, channels, scale, shift, rectify, weights, bias, rows, out, to):
    """Convolve a · scale + shift of one image from many channels to one, with `weights` (9, channels).

    Where `rectify` is set, a ReLU comes in between. `rows` is scratch for three padded rows, which stay in
    the nearest cache; their left and right borders are zero.
    """
    size = (width + 2) * channels
    rows[2 * size : 3 * size] = 0
    _normalise_row(a, start, width, channels, scale, shift, rectify, rows, channels)
    for y in range(height):
        top, middle, bottom = (y + 2) % 3 * size, y % 3 * size, (y + 1) % 3 * size
        if y + 1 < height:
            below = start + (y + 1) * width * channels
            _normalise_row(a, below, width, channels, scale, shift, rectify, rows, bottom + channels)
        else:
            rows[bottom : bottom + size] = 0
        for x in range(width):
            first = second = third = splat(np.float32(0))
            for c in range(0, 3 * channels, LANES):
                p = x * channels + c
                first = fma(load(rows, top + p), load(weights, c), first)
                second = fma(load(rows, middle + p), load(weights, 3 * channels + c), second)
                third = fma(load(rows, bottom + p), load(weights, 6 * channels + c), third)
            out[to + y * width + x] = bias + total(first + second + third)


@njit
def _normalise_row(a, at, width, channels, scale, shift, rectify, rows, to):
    for c in range(0, channels, LANES):
        m, s = load(scale, c), load(shift, c)
        for p in range(c, width * channels, channels):
            h = fma(load(a, at + p), m, s)
            store(rows, to + p, where_positive(h, h) if rectify else h)


@njit
def gather_gradient(
    padded, padded_width, height, width, flipped, channels, a, start, norm, mean, dw, sums, to
):
    """Gradients of `gather` for one image, whose own gradient is `padded`.

    Adds to `dw` (9, channels) that of the weights, their taps in reverse order as those of `flipped`, and
    takes the sums that `gradient_statistics` takes of the gradient behind the ReLU.
    """
    for c in range(0, channels, LANES):
        w0, w1, w2 = _three(flipped, c, channels)
        w3, w4, w5 = _three(flipped, c + 3 * channels, channels)
        w6, w7, w8 = _three(flipped, c + 6 * channels, channels)
        d0, d1, d2 = _three(dw, c, channels)
        d3, d4, d5 = _three(dw, c + 3 * channels, channels)
        d6, d7, d8 = _three(dw, c + 6 * channels, channels)
        n3, n4, m = load(norm, 3 * channels + c), load(norm, 4 * channels + c), load(mean, c)
        s = q = splat(np.float32(0))
        at = start + c
        for y in range(height):
            top = y * padded_width
            middle, bottom = top + padded_width, top + 2 * padded_width
            for x in range(width):
                z0, z1, z2 = _three_taps(padded, top + x)
                z3, z4, z5 = _three_taps(padded, middle + x)
                z6, z7, z8 = _three_taps(padded, bottom + x)
                activation = load(a, at)
                h = fma(activation, n3, n4)
                rectified = where_positive(h, h)
                d0, d1, d2 = fma(z0, rectified, d0), fma(z1, rectified, d1), fma(z2, rectified, d2)
                d3, d4, d5 = fma(z3, rectified, d3), fma(z4, rectified, d4), fma(z5, rectified, d5)
                d6, d7, d8 = fma(z6, rectified, d6), fma(z7, rectified, d7), fma(z8, rectified, d8)
                g = fma(z2, w2, fma(z1, w1, z0 * w0))
                g = g + fma(z5, w5, fma(z4, w4, z3 * w3)) + fma(z8, w8, fma(z7, w7, z6 * w6))
                g = where_positive(h, g)
                s, q = s + g, fma(g, activation - m, q)
                at += channels
        _store_three(dw, c, channels, d0, d1, d2)
        _store_three(dw, c + 3 * channels, channels, d3, d4, d5)
        _store_three(dw, c + 6 * channels, channels, d6, d7, d8)
        store(sums, to + c, s)
        store(sums, to + channels + c, q)


@njit
def _three_taps(padded, at):
    return splat(padded[at]), splat(padded[at + 1]), splat(padded[at + 2])


@njit
def _store_three(weights, at, channels, a, b, c):
    store(weights, at, a)
    store(weights, at + channels, b)
    store(weights, at + 2 * channels, c)


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
            n0, n1, n2 = _three(norm, c, outputs)
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
        n0, n1, n2 = _three(norm, c, channels)
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
