"""The network's passes over a batch, compiled by Numba; each thread takes a slice of the batch.

Batch normalisation needs the whole batch's statistics before the next layer can start, so training passes
over the batch once a layer: each pass reads the layer before as its convolution left it, normalises and
rectifies as it reads, convolves, and sums what it writes. Backward mirrors that. What goes through memory
is every convolution's output, and two of the gradients; all else stays in a thread's scratch, which its L2
cache holds. Evaluation needs no statistics and keeps even the activations in the scratch.

Activations are flat float32, (B, H, W, C). `scratch` is (threads, `scratch_size`).
"""

import numpy as np
from numba import njit, prange

from srmnist.engine import kernels, winograd

C1, C2, C3 = 16, 32, 64


@njit
def _regions(scratch, height, width):
    """A thread's scratch divided: padded input, padded gradient, an image, and a band's V, Z and M."""
    tiles_y, _, padded_width, _, slots = kernels.geometry(height, width)
    padded = (2 * tiles_y + 2) * padded_width * C3
    image = height * width * C3
    band = winograd.POSITIONS * slots * C3
    o1, o2 = padded, 2 * padded
    o3 = o2 + image
    o4, o5, o6 = o3 + band, o3 + 2 * band, o3 + 3 * band
    return scratch[:o1], scratch[o1:o2], scratch[o2:o3], scratch[o3:o4], scratch[o4:o5], scratch[o5:o6]


@njit
def scratch_size(height, width):
    """Floats of scratch that a thread needs for images of this size."""
    tiles_y, _, padded_width, _, slots = kernels.geometry(height, width)
    padded = (2 * tiles_y + 2) * padded_width * C3
    return 2 * padded + height * width * C3 + 3 * winograd.POSITIONS * slots * C3


@njit(parallel=True, cache=True)
def forward_first(x, batch, height, width, weights, a, sums, scratch):
    """conv1: x (B, H, W) → a (B, H, W, 16), and each image's statistics."""
    threads = len(scratch)
    for thread in prange(threads):
        _forward_first(
            x, height, width, weights, a, sums, scratch[thread],
            batch * thread // threads, batch * (thread + 1) // threads,
        )  # fmt: skip


@njit
def _forward_first(x, height, width, weights, a, sums, scratch, begin, end):
    padded = _regions(scratch, height, width)[0]
    padded[:] = 0
    padded_width = kernels.geometry(height, width)[2]
    pixels = height * width
    for i in range(begin, end):
        kernels.pad(x, i * pixels, height, width, padded, padded_width)
        kernels.spread(padded, padded_width, height, width, weights, C1, a, i * pixels * C1)
        kernels.statistics(a, i * pixels * C1, pixels, C1, sums, i * 3 * C1)


@njit(parallel=True, cache=True)
def forward_middle(a, batch, height, width, inputs, outputs, scale, shift, u, b, sums, scratch):
    """conv2, conv3: relu(a · scale + shift) (B, H, W, inputs) → b (B, H, W, outputs), and statistics."""
    threads = len(scratch)
    for thread in prange(threads):
        _forward_middle(
            a, height, width, inputs, outputs, scale, shift, u, b, sums, scratch[thread],
            batch * thread // threads, batch * (thread + 1) // threads,
        )  # fmt: skip


@njit
def _forward_middle(a, height, width, inputs, outputs, scale, shift, u, b, sums, scratch, begin, end):
    padded, _, _, v, m, _ = _regions(scratch, height, width)
    padded[:] = 0
    padded_width = kernels.geometry(height, width)[2]
    pixels = height * width
    for i in range(begin, end):
        kernels.pad_activation(
            a, i * pixels * inputs, height, width, inputs, scale, shift, padded, padded_width
        )
        kernels.convolve(padded, height, width, inputs, outputs, u, v, m, b, i * pixels * outputs)
        kernels.statistics(b, i * pixels * outputs, pixels, outputs, sums, i * 3 * outputs)


@njit(parallel=True, cache=True)
def forward_last(a, batch, height, width, scale, shift, weights, bias, z, scratch):
    """conv4: relu(a · scale + shift) (B, H, W, 64) → z (B, H, W), what the sigmoid takes."""
    threads = len(scratch)
    for thread in prange(threads):
        _forward_last(
            a, height, width, scale, shift, weights, bias, z, scratch[thread],
            batch * thread // threads, batch * (thread + 1) // threads,
        )  # fmt: skip


@njit
def _forward_last(a, height, width, scale, shift, weights, bias, z, scratch, begin, end):
    padded = _regions(scratch, height, width)[0]
    padded[:] = 0
    padded_width = kernels.geometry(height, width)[2]
    pixels = height * width
    for i in range(begin, end):
        kernels.pad_activation(a, i * pixels * C3, height, width, C3, scale, shift, padded, padded_width)
        kernels.gather(padded, padded_width, height, width, weights, C3, bias, z, i * pixels)


@njit(parallel=True, cache=True)
def evaluate(x, batch, height, width, w1, u2, u3, w4, bias, scale, shift, z, scratch):
    """The whole network up to the sigmoid, with fixed statistics: x (B, H, W) → z (B, H, W).

    `scale` and `shift` hold those of the three normalisations one after the other.
    """
    threads = len(scratch)
    for thread in prange(threads):
        _evaluate(
            x, height, width, w1, u2, u3, w4, bias, scale, shift, z, scratch[thread],
            batch * thread // threads, batch * (thread + 1) // threads,
        )  # fmt: skip


@njit
def _evaluate(x, height, width, w1, u2, u3, w4, bias, scale, shift, z, scratch, begin, end):
    first, second, image, v, m, _ = _regions(scratch, height, width)
    tiles_y, _, padded_width, _, _ = kernels.geometry(height, width)
    size = (2 * tiles_y + 2) * padded_width
    padded, padded1 = first[: size * C3], second[:size]
    padded2, padded3 = second[size : size * (1 + C1)], second[size * (1 + C1) : size * (1 + C1 + C2)]
    second[:] = 0
    padded[:] = 0
    s1, s2, s3 = scale[:C1], scale[C1 : C1 + C2], scale[C1 + C2 :]
    t1, t2, t3 = shift[:C1], shift[C1 : C1 + C2], shift[C1 + C2 :]
    pixels = height * width
    for i in range(begin, end):
        kernels.pad(x, i * pixels, height, width, padded1, padded_width)
        kernels.spread(padded1, padded_width, height, width, w1, C1, image, 0)
        kernels.pad_activation(image, 0, height, width, C1, s1, t1, padded2, padded_width)
        kernels.convolve(padded2, height, width, C1, C2, u2, v, m, image, 0)
        kernels.pad_activation(image, 0, height, width, C2, s2, t2, padded3, padded_width)
        kernels.convolve(padded3, height, width, C2, C3, u3, v, m, image, 0)
        kernels.pad_activation(image, 0, height, width, C3, s3, t3, padded, padded_width)
        kernels.gather(padded, padded_width, height, width, w4, C3, bias, z, i * pixels)


@njit(parallel=True, cache=True)
def backward_last(gz, a, batch, height, width, flipped, norm, mean, dw, sums, scratch):
    """conv4: gz (B, H, W) → gradient of its weights, and the sums that bn3's gradient needs.

    `flipped` are the weights (9, 64) with their taps in reverse order, and so is `dw` (threads, 9 · 64).
    """
    threads = len(scratch)
    for thread in prange(threads):
        _backward_last(
            gz, a, height, width, flipped, norm, mean, dw[thread], sums, scratch[thread],
            batch * thread // threads, batch * (thread + 1) // threads,
        )  # fmt: skip


@njit
def _backward_last(gz, a, height, width, flipped, norm, mean, dw, sums, scratch, begin, end):
    h, padded, image, _, _, _ = _regions(scratch, height, width)
    padded[:] = 0
    dw[:] = 0
    padded_width = kernels.geometry(height, width)[2]
    pixels = height * width
    row = padded_width * C3
    scale, shift = norm[3 * C3 : 4 * C3], norm[4 * C3 :]
    for i in range(begin, end):
        start = i * pixels * C3
        kernels.pad(gz, i * pixels, height, width, padded, padded_width)
        kernels.pad_activation(a, start, height, width, C3, scale, shift, h, padded_width)
        kernels.spread_gradient(padded, padded_width, height, width, h, row + C3, row, C3, dw)
        kernels.spread(padded, padded_width, height, width, flipped, C3, image, 0)
        kernels.gradient_statistics(
            image, 0, width * C3, a, start, height, width, C3, norm, mean, image, 0, sums, i * 2 * C3
        )


@njit(parallel=True, cache=True)
def backward_middle(
    g, spread_weights, b, a, batch, height, width, inputs, outputs,
    norm_b, u, norm_a, mean_a, du, g_a, sums, scratch,
):  # fmt: skip
    """conv3, conv2: from the gradient behind the ReLU on `b` to the one behind the ReLU on `a`.

    `g` is that gradient (B, H, W, outputs); or, where `spread_weights` (9, outputs) are given, the image
    (B, H, W) that it is spread from, since computing it again costs less than keeping it.
    """
    threads = len(scratch)
    for thread in prange(threads):
        _backward_middle(
            g, spread_weights, b, a, height, width, inputs, outputs,
            norm_b, u, norm_a, mean_a, du[thread], g_a, sums, scratch[thread],
            batch * thread // threads, batch * (thread + 1) // threads,
        )  # fmt: skip


@njit
def _backward_middle(
    g, spread_weights, b, a, height, width, inputs, outputs,
    norm_b, u, norm_a, mean_a, du, g_a, sums, scratch, begin, end,
):  # fmt: skip
    first, second, image, v, z, m = _regions(scratch, height, width)
    tiles_y, _, padded_width, _, _ = kernels.geometry(height, width)
    size = (2 * tiles_y + 2) * padded_width
    padded, dx, gz = first[: size * inputs], second[: size * inputs], second[size * inputs :]
    padded[:] = 0
    gz[:] = 0
    du[:] = 0
    pixels = height * width
    scale, shift = norm_a[3 * inputs : 4 * inputs], norm_a[4 * inputs :]
    for i in range(begin, end):
        a_start, b_start = i * pixels * inputs, i * pixels * outputs
        kernels.pad_activation(a, a_start, height, width, inputs, scale, shift, padded, padded_width)
        gradient, g_start = g, b_start
        if len(spread_weights) > 0:
            kernels.pad(g, i * pixels, height, width, gz, padded_width)
            kernels.spread(gz, padded_width, height, width, spread_weights, outputs, image, 0)
            gradient, g_start = image, 0
        dx[:] = 0
        kernels.convolve_gradient(
            padded, height, width, inputs, outputs, u, v, z, m,
            gradient, g_start, b, b_start, norm_b, du, dx,
        )  # fmt: skip
        kernels.gradient_statistics(
            dx, (padded_width + 1) * inputs, padded_width * inputs, a, a_start,
            height, width, inputs, norm_a, mean_a, g_a, a_start, sums, i * 2 * inputs,
        )  # fmt: skip


@njit(parallel=True, cache=True)
def backward_first(g, a, x, batch, height, width, norm, dw, flipped, gx, scratch):
    """conv1: gradient of its weights, and, where `gx` is not empty, of the input."""
    threads = len(scratch)
    for thread in prange(threads):
        _backward_first(
            g, a, x, height, width, norm, dw[thread], flipped, gx, scratch[thread],
            batch * thread // threads, batch * (thread + 1) // threads,
        )  # fmt: skip


@njit
def _backward_first(g, a, x, height, width, norm, dw, flipped, gx, scratch, begin, end):
    first, padded_x, image, _, _, _ = _regions(scratch, height, width)
    padded_x[:] = 0
    dw[:] = 0
    tiles_y, _, padded_width, _, _ = kernels.geometry(height, width)
    pixels = height * width
    for i in range(begin, end):
        start = i * pixels * C1
        kernels.pad(x, i * pixels, height, width, padded_x, padded_width)
        kernels.unnormalise(g, start, a, start, pixels, C1, norm, image, 0)
        kernels.spread_gradient(padded_x, padded_width, height, width, image, 0, width * C1, C1, dw)
        if len(gx) > 0:
            padded = first[: (2 * tiles_y + 2) * padded_width * C1]
            padded[:] = 0
            for y in range(height):
                to = ((y + 1) * padded_width + 1) * C1
                padded[to : to + width * C1] = image[y * width * C1 : (y + 1) * width * C1]
            kernels.gather(padded, padded_width, height, width, flipped, C1, np.float32(0), gx, i * pixels)
