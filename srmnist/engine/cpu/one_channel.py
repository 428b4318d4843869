"""Convolutions from one channel to many (conv1) and from many to one (conv4), and their gradients.

Nothing is to be saved there by Winograd's algorithm, so they are computed by definition, for one image on
vectors of channels. Arrays are as in `kernels`; weights are (9, channels), a row for each tap.
"""

import numpy as np
from numba import njit

from srmnist.engine.cpu.simd import LANES, fma, load, load_three, splat, store, total, where_positive


@njit
def spread(padded, padded_width, height, width, weights, channels, a, start):
    """Convolve a padded image of one channel into many, with `weights` (9, channels)."""
    for c in range(0, channels, LANES):
        w0, w1, w2 = load_three(weights, c, channels)
        w3, w4, w5 = load_three(weights, c + 3 * channels, channels)
        w6, w7, w8 = load_three(weights, c + 6 * channels, channels)
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
def _row_of_taps(padded, at, a, b, c):
    return fma(splat(padded[at + 2]), c, fma(splat(padded[at + 1]), b, splat(padded[at]) * a))


@njit
def spread_gradient(padded, padded_width, height, width, g, start, channels, dw):
    """Add one image's gradient of `spread`'s weights to `dw`, (9, channels)."""
    for c in range(0, channels, LANES):
        for tap in range(3):
            at_w = tap * 3 * channels + c
            d0, d1, d2 = load_three(dw, at_w, channels)
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
        w0, w1, w2 = load_three(flipped, c, channels)
        w3, w4, w5 = load_three(flipped, c + 3 * channels, channels)
        w6, w7, w8 = load_three(flipped, c + 6 * channels, channels)
        d0, d1, d2 = load_three(dw, c, channels)
        d3, d4, d5 = load_three(dw, c + 3 * channels, channels)
        d6, d7, d8 = load_three(dw, c + 6 * channels, channels)
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
