"""The network's passes over a batch, compiled by Numba. Each call computes one slice of the batch.

Batch normalisation needs the statistics of the whole batch before the next layer can start. So training
passes over the batch once for each layer: a pass reads the output of the convolution before, applies
normalisation and ReLU as it reads, convolves, and takes the sums of what it writes. The backward passes do
the same in reverse order. Main memory holds the outputs of the convolutions and two of the gradients;
everything else stays in a thread's scratch memory, which fits the L2 cache. Evaluation needs no statistics of
the batch, and keeps the activations in the scratch memory too.

Arrays are contiguous float32; N is the number of images in the slice. Images of one channel are (N, H, W),
others (N, H, W, C). Normalisations, weights and `norm` are as in `kernels` and `one_channel`. `scratch` has
`geometry.scratch_size` floats. The order of arguments is that of `slices.for_each_slice`: first the arrays
with a row for each image, then those that are the same for all, then a sum of the slice's own, then the
scratch memory.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from srmnist.engine.cpu import kernels, one_channel, winograd
from srmnist.engine.cpu.compiled import compiled
from srmnist.engine.cpu.geometry import (
    C1,
    C2,
    C3,
    STRIDE,
    evaluation_rows,
    evaluation_sizes,
    padded_shape,
    scratch_sizes,
    with_halo,
)


class _Scratch(NamedTuple):
    """A thread's scratch memory, divided. The parts are flat: each pass gives them its own shapes."""

    padded: np.ndarray
    other_padded: np.ndarray
    image: np.ndarray
    tiles: kernels.Tiles


@njit
def _divide(scratch, height, width):
    padded, image, _, _ = scratch_sizes(height, width)
    band = 2 * padded + image
    tiles = kernels.divide_band(scratch[band:], height, width)
    return _Scratch(scratch[:padded], scratch[padded : 2 * padded], scratch[2 * padded : band], tiles)


@njit
def _as_shape(memory, shape):
    """The first floats of flat memory, in this shape."""
    size = 1
    for length in shape:
        size *= length
    return memory[:size].reshape(shape)


@njit
def _zeros(memory, shape):
    """The same, filled with zeros."""
    array = _as_shape(memory, shape)
    array[:] = 0
    return array


@compiled
def forward_first(x, a, sums, weights, scratch):
    """conv1: x (N, H, W) → a (N, H, W, 16), and each image's `kernels.statistics`, sums (N, 3, 16)."""
    images, height, width = x.shape
    padded = _zeros(scratch, padded_shape(height, width))
    for i in range(images):
        kernels.pad(x[i], padded)
        one_channel.spread(padded, weights, a[i])
        kernels.statistics(a[i], sums[i])


@compiled
def forward_middle(a, b, sums, normalisation, u, scratch):
    """conv2, conv3: ReLU(normalised a) (N, H, W, inputs) → b (N, H, W, outputs), and sums (N, 3, outputs)."""
    images, height, width, inputs = a.shape
    own = _divide(scratch, height, width)
    padded_height, padded_width = padded_shape(height, width)
    padded = _zeros(own.padded, (padded_height, padded_width, inputs))
    for i in range(images):
        kernels.pad_activation(a[i], normalisation, padded)
        kernels.convolve(padded, u, own.tiles, b[i])
        kernels.statistics(b[i], sums[i])


@compiled
def forward_last(a, z, normalisation, weights, bias, scratch):
    """conv4: ReLU(normalised a) (N, H, W, 64) → z (N, H, W), the input of the sigmoid."""
    images, height, width, channels = a.shape
    rows = _zeros(scratch, (3, width + 2, channels))
    for i in range(images):
        one_channel.gather(a[i], 0, height, normalisation, True, weights, bias[0], rows, z[i], 0, 0)


class _Windows(NamedTuple):
    """A thread's scratch memory in evaluation, divided as in `geometry.evaluation_sizes`. All is flat."""

    padded1: np.ndarray
    padded2: np.ndarray
    padded3: np.ndarray
    output: np.ndarray
    gathered: np.ndarray
    tiles: kernels.Tiles


@njit
def _divide_windows(scratch, height, width):
    size1, size2, size3, output, gathered = evaluation_sizes(height, width)
    end1, end2, end3 = size1, size1 + size2, size1 + size2 + size3
    end4, end5 = end3 + output, end3 + output + gathered
    return _Windows(
        scratch[:end1],
        scratch[end1:end2],
        scratch[end2:end3],
        scratch[end3:end4],
        scratch[end4:end5],
        kernels.divide_band(scratch[end5:], height, width),
    )


@compiled
def evaluate(x, z, blocks, first, last, normalisations, w1, u2, u3, w4, bias, scratch):
    """The network up to the sigmoid, with fixed statistics: x (N, H, W) → z (N, H, W).

    `normalisations` are the three layers' normalisations, one after the other, flat. The pass computes the
    blocks with the numbers `first` to `last`; each image has the `blocks` (n, 4) of `geometry.Grid`.
    """
    _, height, width = x.shape
    shape = (0, 0)
    for number in range(first, last):
        i = number // len(blocks)
        top, bottom, left, right = blocks[number % len(blocks)]
        first_row, last_row = with_halo(top, bottom, height)
        first_column, last_column = with_halo(left, right, width)
        before = shape
        shape = (last_row - first_row, last_column - first_column)
        _evaluate_block(
            x[i, first_row:last_row, first_column:last_column],
            z[i, top:bottom, left:right],
            shape != before,
            top - first_row,
            left - first_column,
            normalisations,
            w1,
            u2,
            u3,
            w4,
            bias[0],
            scratch,
        )


@njit
def _evaluate_block(x, z, anew, above, before, normalisations, w1, u2, u3, w4, bias, scratch):
    """The network up to the sigmoid for a block x (H, W) with its halo → z, the block without the halo.

    `anew` says that the scratch memory comes from no block of the same shape: its borders are not zero yet.
    `above` and `before` are the halo's rows above `z` and its columns before it. Each layer computes some
    rows at a time, and keeps only those that the next layer still needs.
    """
    height, width = x.shape
    own = _divide_windows(scratch, height, width)
    padded_width = padded_shape(height, width)[1]
    rows = evaluation_rows(height, width)
    n1 = normalisations[: 3 * C1]
    n2 = normalisations[3 * C1 : 3 * (C1 + C2)]
    n3 = normalisations[3 * (C1 + C2) :]
    if anew:
        scratch[:] = 0
    padded1 = _as_shape(own.padded1, (rows + STRIDE + 3, padded_width))
    padded2 = _as_shape(own.padded2, (rows + STRIDE + 2, padded_width, C1))
    padded3 = _as_shape(own.padded3, (rows + STRIDE + 2, padded_width, C2))
    gathered = _as_shape(own.gathered, (3, width + 2, C3))
    kernels.clear(padded2, 0, 1)
    kernels.clear(padded3, 0, 1)
    done1 = done2 = done3 = 0  # rows that the convolutions have computed
    while done3 < height:
        # A convolution needs one row more of the one before; conv2 computes whole tiles.
        until3 = min(done3 + rows, height)
        until2 = min(until3 + STRIDE, height)
        until1 = min(until2 + 1, height)

        if until1 > done1:
            kernels.pad_rows(x, done1 - 1, padded1[: until1 - done1 + 2])
            output1 = _as_shape(own.output, (until1 - done1, width, C1))
            one_channel.spread(padded1, w1, output1)
            kernels.pad_activation(output1, n1, padded2[done1 - done2 :])
            if until1 == height:
                kernels.clear(padded2, until1 - done2 + 1, len(padded2))

        if until2 > done2:
            output2 = _as_shape(own.output, (until2 - done2, width, C2))
            kernels.convolve(padded2, u2, own.tiles, output2)
            kernels.pad_activation(output2, n2, padded3[done2 - done3 :])
            if until2 == height:
                kernels.clear(padded3, until2 - done3 + 1, len(padded3))
            kernels.move_up(padded2, until2 - done2)

        output3 = _as_shape(own.output, (until3 - done3, width, C3))
        kernels.convolve(padded3, u3, own.tiles, output3)
        kernels.move_up(padded3, until3 - done3)

        one_channel.gather(output3, done3, height, n3, True, w4, bias, gathered, z, above, before)
        done1, done2, done3 = until1, until2, until3


@compiled
def backward_last(gz, a, sums, flipped, normalisation, dw, scratch):
    """conv4: gz (N, H, W) → the gradient of the weights, dw (9, 64), and the sums (N, 2, 64) for bn3's
    gradient.

    `flipped` (9, 64) are the weights with their taps in reverse order; so is `dw`.
    """
    images, height, width = gz.shape
    padded = _zeros(scratch, padded_shape(height, width))
    dw[:] = 0
    for i in range(images):
        kernels.pad(gz[i], padded)
        one_channel.gather_gradient(padded, flipped, a[i], normalisation, dw, sums[i])


@compiled
def backward_third(gz, b, a, g_a, sums, flipped, norm, u, normalisation, du, scratch):
    """conv3, as `backward_middle`; but the gradient of the ReLU after it is computed from gz (N, H, W).

    `backward_last` has computed that gradient before. To compute it again takes less time than to keep it in
    memory. `flipped` are conv4's weights as there.
    """
    images, height, width, inputs = a.shape
    own = _divide(scratch, height, width)
    padded_height, padded_width = padded_shape(height, width)
    size = padded_height * padded_width * inputs
    padded = _zeros(own.padded, (padded_height, padded_width, inputs))
    dx = _as_shape(own.other_padded, (padded_height, padded_width, inputs))
    padded_gz = _zeros(own.other_padded[size:], (padded_height, padded_width))
    g = _as_shape(own.image, b[0].shape)
    du[:] = 0
    for i in range(images):
        kernels.pad(gz[i], padded_gz)
        one_channel.spread(padded_gz, flipped, g)
        kernels.pad_activation(a[i], normalisation, padded)
        dx[:] = 0
        kernels.convolve_gradient(padded, u, own.tiles, g, b[i], norm, du, dx)
        kernels.gradient_statistics(dx, a[i], normalisation, g_a[i], sums[i])


@compiled
def backward_second(g, b, a, g_a, sums, norm, u, normalisation, du, scratch):
    """conv2: g (N, H, W, outputs) → g_a (N, H, W, inputs), du (36, inputs · outputs) and sums (N, 2, inputs).

    `g` is the gradient of the output of the ReLU on the normalised b; `g_a` is that of the input of the ReLU
    on the normalised a. `du` is the gradient of the transformed weights, and `u` their transform, transposed.
    """
    images, height, width, inputs = a.shape
    own = _divide(scratch, height, width)
    padded_height, padded_width = padded_shape(height, width)
    padded = _zeros(own.padded, (padded_height, padded_width, inputs))
    dx = _as_shape(own.other_padded, (padded_height, padded_width, inputs))
    du[:] = 0
    for i in range(images):
        kernels.pad_activation(a[i], normalisation, padded)
        dx[:] = 0
        kernels.convolve_gradient(padded, u, own.tiles, g[i], b[i], norm, du, dx)
        kernels.gradient_statistics(dx, a[i], normalisation, g_a[i], sums[i])


@compiled
def backward_first(x, g, a, norm, dw, scratch):
    """conv1: the gradient of its weights, dw (9, 16), from that of the ReLU's output, g (N, H, W, 16)."""
    images, height, width = x.shape
    own = _divide(scratch, height, width)
    padded = _zeros(own.padded, padded_shape(height, width))
    unnormalised = _as_shape(own.image, a[0].shape)
    dw[:] = 0
    for i in range(images):
        kernels.pad(x[i], padded)
        kernels.unnormalise(g[i], a[i], norm, unnormalised)
        one_channel.spread_gradient(padded, unnormalised, dw)


@compiled
def input_gradient(g, a, gx, norm, flipped, scratch):
    """conv1: the gradient of its input, gx (N, H, W), from that of the ReLU's output, g (N, H, W, 16).

    `flipped` (9, 16) are the weights with their taps in reverse order.
    """
    images, height, width, channels = a.shape
    own = _divide(scratch, height, width)
    unnormalised = _as_shape(own.image, a[0].shape)
    rows = _zeros(own.padded, (3, width + 2, channels))
    identity, no_bias = np.zeros((3, channels), np.float32), np.float32(0)
    identity[0] = 1
    for i in range(images):
        kernels.unnormalise(g[i], a[i], norm, unnormalised)
        one_channel.gather(unnormalised, 0, height, identity, False, flipped, no_bias, rows, gx[i], 0, 0)


@compiled
def transform_weights(w, u):
    """Weights (filters, 9) → their Winograd transform, u (36, filters)."""
    winograd.transform_filters(w, u)


@compiled
def transform_weight_gradient(du, dw):
    """Gradients of transformed weights, du (slices, 36, filters), summed → of weights, dw (9, filters).

    `du` is overwritten.
    """
    winograd.transform_filter_gradient(du, dw)
