"""The network's passes over a batch, compiled by Numba, each for a slice of it.

Batch normalisation needs the whole batch's statistics before the next layer can start, so training passes
over the batch once a layer: each pass reads the layer before as its convolution left it, normalises and
rectifies as it reads, convolves, and sums what it writes. Backward mirrors that. What goes through memory
is every convolution's output, and two of the gradients; all else stays in a thread's scratch, which its L2
cache holds. Evaluation needs no statistics and keeps even the activations in the scratch.

Activations are flat float32, (B, H, W, C); a pass does images `begin` to `end`, with `scratch` of
`scratch_size` floats to itself.
"""

import numpy as np
from numba import njit

from srmnist.engine.cpu import kernels, one_channel, winograd
from srmnist.engine.cpu.compiled import compiled

C1, C2, C3 = 16, 32, 64


@njit
def _regions(scratch, height, width):
    """Scratch divided: two padded images, an image, and a band of tiles."""
    padded = kernels.padded_geometry(height, width)[1] * C3
    image = 2 * padded + height * width * C3
    return scratch[:padded], scratch[padded : 2 * padded], scratch[2 * padded : image], scratch[image:]


@compiled
def scratch_size(height, width):
    """Floats of scratch that a pass needs for images of this size."""
    padded = kernels.padded_geometry(height, width)[1]
    return (2 * padded + height * width) * C3 + kernels.band_size(height, width)


@compiled
def forward_first(x, height, width, weights, a, sums, scratch, begin, end):
    """conv1: x (B, H, W) → a (B, H, W, 16), and each image's statistics."""
    padded_width, padded_size = kernels.padded_geometry(height, width)
    padded = _regions(scratch, height, width)[0][:padded_size]
    padded[:] = 0
    pixels = height * width
    for i in range(begin, end):
        kernels.pad(x, i * pixels, height, width, padded, padded_width)
        one_channel.spread(padded, padded_width, height, width, weights, C1, a, i * pixels * C1)
        kernels.statistics(a, i * pixels * C1, pixels, C1, sums, i * 3 * C1)


@compiled
def forward_middle(a, height, width, inputs, outputs, scale, shift, u, b, sums, scratch, begin, end):
    """conv2, conv3: relu(a · scale + shift) (B, H, W, inputs) → b (B, H, W, outputs), and statistics."""
    padded_width, padded_size = kernels.padded_geometry(height, width)
    padded, _, _, band = _regions(scratch, height, width)
    padded = padded[: padded_size * inputs]
    padded[:] = 0
    pixels = height * width
    for i in range(begin, end):
        kernels.pad_activation(
            a, i * pixels * inputs, height, width, inputs, scale, shift, padded, padded_width
        )
        kernels.convolve(padded, height, width, inputs, outputs, u, band, b, i * pixels * outputs)
        kernels.statistics(b, i * pixels * outputs, pixels, outputs, sums, i * 3 * outputs)


@compiled
def forward_last(a, height, width, scale, shift, weights, bias, z, scratch, begin, end):
    """conv4: relu(a · scale + shift) (B, H, W, 64) → z (B, H, W), what the sigmoid takes."""
    rows = _regions(scratch, height, width)[0]
    rows[: 3 * (width + 2) * C3] = 0
    pixels = height * width
    for i in range(begin, end):
        start = i * pixels
        one_channel.gather(
            a, start * C3, height, width, C3, scale, shift, True, weights, bias, rows, z, start
        )


@compiled
def evaluate(x, height, width, w1, u2, u3, w4, bias, scale, shift, z, scratch, begin, end):
    """The whole network up to the sigmoid, with fixed statistics: x (B, H, W) → z (B, H, W).

    `scale` and `shift` hold those of the three normalisations one after the other.
    """
    padded_width, size = kernels.padded_geometry(height, width)
    first, second, image, band = _regions(scratch, height, width)
    padded1, padded2 = first[:size], first[size : size * (1 + C1)]
    padded3, rows = first[size * (1 + C1) : size * (1 + C1 + C2)], second[: 3 * (width + 2) * C3]
    first[: size * (1 + C1 + C2)] = 0
    rows[:] = 0
    s1, s2, s3 = scale[:C1], scale[C1 : C1 + C2], scale[C1 + C2 :]
    t1, t2, t3 = shift[:C1], shift[C1 : C1 + C2], shift[C1 + C2 :]
    pixels = height * width
    for i in range(begin, end):
        kernels.pad(x, i * pixels, height, width, padded1, padded_width)
        one_channel.spread(padded1, padded_width, height, width, w1, C1, image, 0)
        kernels.pad_activation(image, 0, height, width, C1, s1, t1, padded2, padded_width)
        kernels.convolve(padded2, height, width, C1, C2, u2, band, image, 0)
        kernels.pad_activation(image, 0, height, width, C2, s2, t2, padded3, padded_width)
        kernels.convolve(padded3, height, width, C2, C3, u3, band, image, 0)
        one_channel.gather(image, 0, height, width, C3, s3, t3, True, w4, bias, rows, z, i * pixels)


@compiled
def backward_last(gz, a, height, width, flipped, norm, mean, dw, sums, scratch, begin, end):
    """conv4: gz (B, H, W) → gradient of its weights, and the sums that bn3's gradient needs.

    `flipped` are the weights (9, 64) with their taps in reverse order, as those of `dw` are.
    """
    padded_width, padded_size = kernels.padded_geometry(height, width)
    padded = _regions(scratch, height, width)[0][:padded_size]
    padded[:] = 0
    dw[:] = 0
    pixels = height * width
    for i in range(begin, end):
        kernels.pad(gz, i * pixels, height, width, padded, padded_width)
        one_channel.gather_gradient(
            padded, padded_width, height, width, flipped, C3,
            a, i * pixels * C3, norm, mean, dw, sums, i * 2 * C3,
        )  # fmt: skip


@compiled
def backward_middle(
    g, spread_weights, b, a, height, width, inputs, outputs,
    norm_b, u, norm_a, mean_a, du, g_a, sums, scratch, begin, end,
):  # fmt: skip
    """conv3, conv2: from the gradient behind the ReLU on `b` to the one behind the ReLU on `a`.

    `g` is that gradient (B, H, W, outputs); or, where `spread_weights` (9, outputs) are given, the image
    (B, H, W) that it is spread from, since computing it again costs less than keeping it.
    """
    first, second, image, band = _regions(scratch, height, width)
    padded_width, size = kernels.padded_geometry(height, width)
    padded, dx = first[: size * inputs], second[: size * inputs]
    gz = second[size * inputs : size * (inputs + 1)]
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
            one_channel.spread(gz, padded_width, height, width, spread_weights, outputs, image, 0)
            gradient, g_start = image, 0
        dx[:] = 0
        kernels.convolve_gradient(
            padded, height, width, inputs, outputs, u, band,
            gradient, g_start, b, b_start, norm_b, du, dx,
        )  # fmt: skip
        kernels.gradient_statistics(
            dx, (padded_width + 1) * inputs, padded_width * inputs, a, a_start,
            height, width, inputs, norm_a, mean_a, g_a, a_start, sums, i * 2 * inputs,
        )  # fmt: skip


@compiled
def backward_first(g, a, x, height, width, norm, dw, flipped, gx, scratch, begin, end):
    """conv1: gradient of its weights, and, where `gx` is not empty, of the input."""
    padded_width, padded_size = kernels.padded_geometry(height, width)
    first, second, image, _ = _regions(scratch, height, width)
    padded, rows = first[:padded_size], second[: 3 * (width + 2) * C1]
    padded[:] = 0
    rows[:] = 0
    dw[:] = 0
    pixels = height * width
    one, zero = np.ones(C1, np.float32), np.zeros(C1, np.float32)
    for i in range(begin, end):
        start = i * pixels * C1
        kernels.pad(x, i * pixels, height, width, padded, padded_width)
        kernels.unnormalise(g, start, a, start, pixels, C1, norm, image, 0)
        one_channel.spread_gradient(padded, padded_width, height, width, image, 0, C1, dw)
        if len(gx) > 0:
            one_channel.gather(
                image, 0, height, width, C1, one, zero, False, flipped, zero[0], rows, gx, i * pixels
            )


@compiled
def transform_weights(w, filters, u):
    """Weights (filters, 9) → their Winograd transform `u` (36, filters)."""
    taps = np.empty(9 * filters, np.float32)
    for f in range(filters):
        for tap in range(9):
            taps[tap * filters + f] = w[9 * f + tap]
    winograd.transform_filters(taps, filters, u)


@compiled
def transform_weight_gradient(du, parts, filters, dw):
    """Gradients of the transform, `du` (parts, 36, filters), summed → of the weights, `dw` (9, filters)."""
    winograd.transform_filter_gradient(du, parts, filters, dw)
