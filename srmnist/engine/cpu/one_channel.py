"""Convolutions from one channel to many (conv1) and from many to one (conv4), and their gradients.

Winograd's algorithm saves nothing where there is one channel, so these follow the definition of a
convolution, for one block of an image and on vectors of channels. Arrays are as in `kernels`; weights are
(9, C), a row for each tap.
"""

import numpy as np
from numba import njit

from srmnist.engine.cpu.simd import (
    LANES,
    broadcast,
    fma,
    load,
    load_three,
    row_of,
    splat,
    store,
    store_three,
    total,
    where_positive,
)


@njit
def spread(padded, weights, out):
    """Convolve a padded block of one channel (PH, PW) into many, (H, W, C)."""
    height, width, channels = out.shape
    padded_width = padded.shape[1]
    for c in range(0, channels, LANES):
        top_weights = load_three(weights, c, channels)
        middle_weights = load_three(weights, c + 3 * channels, channels)
        bottom_weights = load_three(weights, c + 6 * channels, channels)
        for y in range(height):
            at, to = y * padded_width, y * row_of(out) + c
            for _ in range(width):
                top = _row_of_taps(padded, at, top_weights)
                middle = _row_of_taps(padded, at + padded_width, middle_weights)
                bottom = _row_of_taps(padded, at + 2 * padded_width, bottom_weights)
                store(out, to, top + middle + bottom)
                at += 1
                to += channels


@njit
def _row_of_taps(padded, at, weights):
    a, b, c = weights
    return fma(broadcast(padded, at + 2), c, fma(broadcast(padded, at + 1), b, broadcast(padded, at) * a))


@njit
def spread_gradient(padded, g, dw):
    """Add the gradient of `spread`'s weights to `dw` (9, C). `g` (H, W, C) is the gradient of its output."""
    height, width, channels = g.shape
    padded_width = padded.shape[1]
    for c in range(0, channels, LANES):
        for tap in range(3):
            at_w = tap * 3 * channels + c
            d0, d1, d2 = load_three(dw, at_w, channels)
            for y in range(height):
                p, at = (y + tap) * padded_width, y * row_of(g) + c
                for _ in range(width):
                    gradient = load(g, at)
                    d0 = fma(broadcast(padded, p), gradient, d0)
                    d1 = fma(broadcast(padded, p + 1), gradient, d1)
                    d2 = fma(broadcast(padded, p + 2), gradient, d2)
                    p += 1
                    at += channels
            store_three(dw, at_w, channels, (d0, d1, d2))


@njit
def gather(a, first, height, normalisation, rectify, weights, bias, rows, out, above, before):
    """Convolve rows of a normalised image of `height` rows, many channels, into one channel.

    `a` (…, W, C) holds the image's rows from `first` on. Calls for consecutive rows share `rows`, scratch
    memory as in `_gather_row`. A ReLU comes before the convolution if `rectify` is set. `out` is the part of
    the result below its first `above` rows, and right of its first `before` columns. The last row of a call
    is computed by the next one, as it needs the row that follows; the image's last row needs none.
    """
    if first == 0:
        rows[2] = 0
    last = first + len(a)
    for y in range(first, last + (last == height)):
        if y < height:
            _normalise_row(a, y - first, normalisation, rectify, rows, y % 3)
        else:
            rows[y % 3] = 0
        if above <= y - 1 < above + len(out):
            _gather_row(rows, y - 1, before, weights, bias, out[y - 1 - above])


@njit
def _gather_row(rows, y, first, weights, bias, out):
    """Convolve three rows into row `y` of one channel, `out`, from the column `first` on.

    `rows` (3, W + 2, C) is scratch memory for three padded rows, which stay in the L1 cache. It holds the
    rows y − 1, y and y + 1, each at its number modulo 3. Their left and right borders must be zero.
    """
    _, padded_width, channels = rows.shape
    size = padded_width * channels
    top, middle, bottom = (y + 2) % 3, y % 3, (y + 1) % 3
    for x in range(len(out)):
        one = two = three = splat(np.float32(0))
        for c in range(0, 3 * channels, LANES):
            p = (first + x) * channels + c
            one = fma(load(rows, top * size + p), load(weights, c), one)
            two = fma(load(rows, middle * size + p), load(weights, 3 * channels + c), two)
            three = fma(load(rows, bottom * size + p), load(weights, 6 * channels + c), three)
        out[x] = bias + total(one + two + three)


@njit
def _normalise_row(a, y, normalisation, rectify, rows, row):
    """Write row `y` of the normalised image into one of the padded rows."""
    _, width, channels = a.shape
    at, to = y * row_of(a), (row * (width + 2) + 1) * channels
    for c in range(0, channels, LANES):
        scale, shift = load(normalisation, c), load(normalisation, channels + c)
        for p in range(c, width * channels, channels):
            h = fma(load(a, at + p), scale, shift)
            store(rows, to + p, where_positive(h, h) if rectify else h)


@njit
def gather_gradient(padded, flipped, a, normalisation, dw, sums):
    """Gradients of `gather`, with its ReLU, for one block.

    Parameters
    ----------
    padded : (PH, PW)
        The gradient of the output.
    flipped : (9, C)
        The weights, with their taps in reverse order.
    a, normalisation
        As `gather` had them.
    dw : (9, C)
        The gradient of the weights is added to it, with the taps in reverse order.
    sums : (2, C)
        As `kernels.gradient_statistics` takes them, of the gradient before the ReLU.
    """
    height, width, channels = a.shape
    padded_width = padded.shape[1]
    for c in range(0, channels, LANES):
        top_weights = load_three(flipped, c, channels)
        middle_weights = load_three(flipped, c + 3 * channels, channels)
        bottom_weights = load_three(flipped, c + 6 * channels, channels)
        top_sums = load_three(dw, c, channels)
        middle_sums = load_three(dw, c + 3 * channels, channels)
        bottom_sums = load_three(dw, c + 6 * channels, channels)
        scale, shift, mean = load_three(normalisation, c, channels)
        s = q = splat(np.float32(0))
        for y in range(height):
            top, at = y * padded_width, y * row_of(a) + c
            for _ in range(width):
                activation = load(a, at)
                h = fma(activation, scale, shift)
                rectified = where_positive(h, h)
                top_sums, g0 = _taps_gradient(padded, top, rectified, top_weights, top_sums)
                middle_sums, g1 = _taps_gradient(
                    padded, top + padded_width, rectified, middle_weights, middle_sums
                )
                bottom_sums, g2 = _taps_gradient(
                    padded, top + 2 * padded_width, rectified, bottom_weights, bottom_sums
                )
                g = where_positive(h, g0 + g1 + g2)
                s, q = s + g, fma(g, activation - mean, q)
                top += 1
                at += channels
        store_three(dw, c, channels, top_sums)
        store_three(dw, c + 3 * channels, channels, middle_sums)
        store_three(dw, c + 6 * channels, channels, bottom_sums)
        store(sums, c, s)
        store(sums, channels + c, q)


@njit
def _taps_gradient(padded, at, rectified, weights, sums):
    """The sums of three taps' gradients with one pixel more, and what this pixel's gradient has from them."""
    a, b, c = weights
    d0, d1, d2 = sums
    z0, z1, z2 = broadcast(padded, at), broadcast(padded, at + 1), broadcast(padded, at + 2)
    sums = fma(z0, rectified, d0), fma(z1, rectified, d1), fma(z2, rectified, d2)
    return sums, fma(z2, c, fma(z1, b, z0 * a))
