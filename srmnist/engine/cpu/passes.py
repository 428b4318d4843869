"""The network's passes over a batch, compiled by Numba. Each call computes one slice of the batch.

Batch normalisation needs the statistics of the whole batch before the next layer can start. So training
passes over the batch once for each layer: a pass reads the output of the convolution before, applies
normalisation and ReLU as it reads, convolves, and takes the sums of what it writes. The backward passes do
the same in reverse order. Main memory holds the outputs of the convolutions and two of the gradients;
everything else stays in a thread's scratch memory. Evaluation, which needs no statistics of the batch, is in
`evaluation`.

A pass computes some of the batch's blocks: those with the numbers `first` to `last`. Each image has the
`blocks` (n, 4) of a `geometry.Grid`. In training a block needs one pixel more to each side, and the gradients
of the inputs need the tiles above it and to its left. `sums` have an element for each block of the batch.

Arrays are contiguous float32; N is the number of images in the batch. Images of one channel are (N, H, W),
others (N, H, W, C). Normalisations, weights and `norm` are as in `kernels` and `one_channel`. The order of
arguments is that of `slices.for_each_block`: first the arrays that have something for each image or block,
then the blocks, then what is the same for all, then a sum of the slice's own, then the scratch memory.
"""

import numpy as np
from numba import njit

from srmnist.engine.cpu import kernels, one_channel, winograd
from srmnist.engine.cpu.compiled import compiled
from srmnist.engine.cpu.geometry import (
    STRIDE,
    block_of,
    cut,
    padded_shape,
    shape_of,
    whole_gradients,
    with_halo,
    with_tiles_before,
)
from srmnist.engine.cpu.workspace import as_block, divide, zeros


@njit
def _padded(image, area, memory):
    """An area of an image of one channel, padded with the pixels around it or with zeros."""
    around = with_halo(area, 1, *image.shape)
    padded = zeros(memory, padded_shape(*shape_of(area)))
    place = padded[1 + around.top - area.top :, 1 + around.left - area.left :]
    kernels.copy(cut(image, around), place)
    return padded


@njit
def _activated(a, area, normalisation, memory):
    """An area of ReLU(normalised a) of one image, padded in the same way."""
    height, width, channels = a.shape
    around = with_halo(area, 1, height, width)
    padded = zeros(memory, (*padded_shape(*shape_of(area)), channels))
    place = padded[1 + around.top - area.top :, 1 + around.left - area.left :]
    kernels.activate(cut(a, around), normalisation, place)
    return padded


@compiled
def forward_first(x, a, sums, blocks, first, last, weights, scratch):
    """conv1: x (N, H, W) → a (N, H, W, 16), and each block's `kernels.statistics`, (3, 16)."""
    for number in range(first, last):
        i, area = block_of(blocks, number)
        out = cut(a[i], area)
        one_channel.spread(_padded(x[i], area, scratch), weights, out)
        kernels.statistics(out, sums[number])


@compiled
def forward_middle(a, b, sums, blocks, first, last, normalisation, u, scratch):
    """conv2, conv3: ReLU(normalised a) (N, H, W, inputs) → b (N, H, W, outputs), and sums, (3, outputs)."""
    for number in range(first, last):
        i, area = block_of(blocks, number)
        own, out = divide(scratch, area), cut(b[i], area)
        kernels.convolve(_activated(a[i], area, normalisation, own.padded), u, own.tiles, out)
        kernels.statistics(out, sums[number])


@compiled
def forward_last(a, z, blocks, first, last, normalisation, weights, bias, scratch):
    """conv4: ReLU(normalised a) (N, H, W, 64) → z (N, H, W), the input of the sigmoid."""
    _, height, width, channels = a.shape
    for number in range(first, last):
        i, area = block_of(blocks, number)
        around = with_halo(area, 1, height, width)
        down, across = shape_of(around)
        one_channel.gather(
            cut(a[i], around),
            0,
            down,
            normalisation,
            True,
            weights,
            bias[0],
            zeros(scratch, (3, across + 2, channels)),
            cut(z[i], area),
            area.top - around.top,
            area.left - around.left,
        )


@compiled
def backward_last(gz, a, sums, blocks, first, last, flipped, normalisation, dw, scratch):
    """conv4: gz (N, H, W) → the gradient of the weights, dw (9, 64), and sums for bn3's gradient, (2, 64).

    `flipped` (9, 64) are the weights with their taps in reverse order; so is `dw`.
    """
    dw[:] = 0
    for number in range(first, last):
        i, area = block_of(blocks, number)
        padded = _padded(gz[i], area, scratch)
        one_channel.gather_gradient(padded, flipped, cut(a[i], area), normalisation, dw, sums[number])


@compiled
def backward_third(gz, b, a, g_a, sums, blocks, first, last, flipped, norm, u, normalisation, du, scratch):
    """conv3, as `backward_middle`; but the gradient of the ReLU after it is computed from gz (N, H, W).

    `backward_last` has computed that gradient before. To compute it again takes less time than to keep it in
    memory. `flipped` are conv4's weights as there.
    """
    du[:] = 0
    for number in range(first, last):
        i, area = block_of(blocks, number)
        tiles = with_tiles_before(area)
        own = divide(scratch, tiles)
        height, width = shape_of(tiles)
        g = as_block(own.image, (height, width, b.shape[3]))
        one_channel.spread(_padded(gz[i], tiles, own.one_channel), flipped, g)
        _backward(g, b[i], a[i], g_a[i], sums[number], area, norm, u, normalisation, du, own)


@compiled
def backward_second(g, b, a, g_a, sums, blocks, first, last, norm, u, normalisation, du, scratch):
    """conv2: g (N, H, W, outputs) → g_a (N, H, W, inputs), du (36, inputs · outputs) and sums, (2, inputs).

    `g` is the gradient of the output of the ReLU on the normalised b; `g_a` is that of the input of the ReLU
    on the normalised a. `du` is the gradient of the transformed weights, and `u` their transform, transposed.
    """
    du[:] = 0
    for number in range(first, last):
        i, area = block_of(blocks, number)
        tiles = with_tiles_before(area)
        own = divide(scratch, tiles)
        g_tiles = cut(g[i], tiles)
        _backward(g_tiles, b[i], a[i], g_a[i], sums[number], area, norm, u, normalisation, du, own)


@njit
def _backward(g, b, a, g_a, sums, area, norm, u, normalisation, du, own):
    """One block of `backward_second`. `b`, `a` and `g_a` are images; `g` has the block's tiles.

    The block's tiles are its own and those before them. `du` sums over its own; `g_a` and `sums` get the
    pixels that the tiles cover wholly.
    """
    height, width, _ = a.shape
    tiles, whole = with_tiles_before(area), whole_gradients(area, height, width)
    padded = _activated(a, tiles, normalisation, own.padded)
    dx = zeros(own.gradient, padded.shape)
    above, before = (area.top - tiles.top) // STRIDE, (area.left - tiles.left) // STRIDE
    kernels.convolve_gradient(padded, u, own.tiles, g, cut(b, tiles), norm, above, before, du, dx)
    dx_whole = dx[1 + whole.top - tiles.top :, 1 + whole.left - tiles.left :]
    kernels.gradient_statistics(dx_whole, cut(a, whole), normalisation, cut(g_a, whole), sums)


@compiled
def backward_first(x, g, a, blocks, first, last, norm, dw, scratch):
    """conv1: the gradient of its weights, dw (9, 16), from that of the ReLU's output, g (N, H, W, 16)."""
    dw[:] = 0
    for number in range(first, last):
        i, area = block_of(blocks, number)
        own = divide(scratch, area)
        height, width = shape_of(area)
        unnormalised = as_block(own.image, (height, width, a.shape[3]))
        kernels.unnormalise(cut(g[i], area), cut(a[i], area), norm, unnormalised)
        one_channel.spread_gradient(_padded(x[i], area, own.one_channel), unnormalised, dw)


@compiled
def input_gradient(g, a, gx, blocks, first, last, norm, flipped, scratch):
    """conv1: the gradient of its input, gx (N, H, W), from that of the ReLU's output, g (N, H, W, 16).

    `flipped` (9, 16) are the weights with their taps in reverse order.
    """
    _, height, width, channels = a.shape
    identity, no_bias = np.zeros((3, channels), np.float32), np.float32(0)
    identity[0] = 1
    for number in range(first, last):
        i, area = block_of(blocks, number)
        around = with_halo(area, 1, height, width)
        down, across = shape_of(around)
        own = divide(scratch, area)
        unnormalised = as_block(own.image, (down, across, channels))
        kernels.unnormalise(cut(g[i], around), cut(a[i], around), norm, unnormalised)
        one_channel.gather(
            unnormalised,
            0,
            down,
            identity,
            False,
            flipped,
            no_bias,
            zeros(own.padded, (3, across + 2, channels)),
            cut(gx[i], area),
            area.top - around.top,
            area.left - around.left,
        )


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
