"""Evaluation of the network, compiled by Numba: one pass over a batch.

It needs no statistics of the batch, so what the layers give to each other stays in the scratch memory. Arrays
and the order of arguments are as in `passes`.
"""

from numba import njit

from srmnist.engine.cpu import kernels, one_channel
from srmnist.engine.cpu.compiled import compiled
from srmnist.engine.cpu.geometry import (
    C1,
    C2,
    C3,
    HALO,
    STRIDE,
    block_of,
    cut,
    evaluation_rows,
    padded_shape,
    shape_of,
    with_halo,
)
from srmnist.engine.cpu.workspace import as_block, as_shape, divide_windows


@compiled
def evaluate(x, z, blocks, first, last, normalisations, w1, u2, u3, w4, bias, scratch):
    """The network up to the sigmoid, with fixed statistics: x (N, H, W) → z (N, H, W).

    `normalisations` are the three layers' normalisations, one after the other, flat.
    """
    _, height, width = x.shape
    shape = (0, 0)
    for number in range(first, last):
        i, area = block_of(blocks, number)
        around = with_halo(area, HALO, height, width)
        before, shape = shape, shape_of(around)
        _evaluate_block(
            cut(x[i], around),
            cut(z[i], area),
            shape != before,
            area.top - around.top,
            area.left - around.left,
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
    own = divide_windows(scratch, height, width)
    padded_width = padded_shape(height, width)[1]
    rows = evaluation_rows(height, width)
    n1 = normalisations[: 3 * C1].reshape((3, C1))
    n2 = normalisations[3 * C1 : 3 * (C1 + C2)].reshape((3, C2))
    n3 = normalisations[3 * (C1 + C2) :].reshape((3, C3))
    if anew:
        scratch[:] = 0
    padded1 = as_shape(own.padded1, (rows + STRIDE + 3, padded_width))
    padded2 = as_shape(own.padded2, (rows + STRIDE + 2, padded_width, C1))
    padded3 = as_shape(own.padded3, (rows + STRIDE + 2, padded_width, C2))
    gathered = as_shape(own.gathered, (3, width + 2, C3))
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
            output1 = as_block(own.output, (until1 - done1, width, C1))
            one_channel.spread(padded1, w1, output1)
            kernels.activate(output1, n1, padded2[done1 - done2 + 1 :, 1:])
            if until1 == height:
                kernels.clear(padded2, until1 - done2 + 1, len(padded2))

        if until2 > done2:
            output2 = as_block(own.output, (until2 - done2, width, C2))
            kernels.convolve(padded2, u2, own.tiles, output2)
            kernels.activate(output2, n2, padded3[done2 - done3 + 1 :, 1:])
            if until2 == height:
                kernels.clear(padded3, until2 - done3 + 1, len(padded3))
            kernels.move_up(padded2, until2 - done2)

        output3 = as_block(own.output, (until3 - done3, width, C3))
        kernels.convolve(padded3, u3, own.tiles, output3)
        kernels.move_up(padded3, until3 - done3)

        one_channel.gather(output3, done3, height, n3, True, w4, bias, gathered, z, above, before)
        done1, done2, done3 = until1, until2, until3
