"""The matrix products between Winograd's transforms: one at each of the 36 positions.

Each product exists once for each pair of channel numbers: with constant strides, the inner loop computes no
address. The inner loop is a tile of the result, whose accumulators all stay in registers.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from srmnist.engine.cpu.geometry import POSITIONS, TILE_ROWS
from srmnist.engine.cpu.simd import (
    CACHE_LINE,
    LANES,
    REGISTERS,
    VECTOR,
    emit_address,
    emit_fma,
    emit_load,
    emit_splat,
    emit_store,
    prefetch_to_read,
    prefetch_to_write,
)


class Ahead(NamedTuple):
    """Main memory that is fetched into the L2 cache while the products compute.

    So the pass that follows does not wait for it. It begins at the offset ``at`` and has ``rows`` of ``size``
    floats, ``row`` floats apart. ``write`` says whether the next pass writes there. A prefetch beyond an
    array's end does nothing.
    """

    memory: np.ndarray
    at: int
    rows: int
    size: int
    row: int
    write: bool


@njit
def _fetch(ahead, position):
    """Fetch the share of one of the 36 positions, without a turn where a row ends within it."""
    lines = -(-ahead.rows * ahead.size // (POSITIONS * CACHE_LINE))
    first = position * lines * CACHE_LINE
    at = ahead.at + first // ahead.size * ahead.row + first % ahead.size
    for _ in range(lines):
        if ahead.write:
            prefetch_to_write(ahead.memory, at)
        else:
            prefetch_to_read(ahead.memory, at)
        at += CACHE_LINE


_GRADIENT_ROWS = 8 if REGISTERS == 32 else 4


def panel_width(channels: int) -> int:
    """Columns that a matrix product computes at a time: U and dU are (36, panels, rows, panel_width)."""
    return min(channels, 2 * LANES)


def _product_tile(rows, columns, *, a_row, a_depth, b_depth, c_row, accumulate=False):
    """Make the inner loop of a matrix product, unrolled over a tile of the result.

    Parameters
    ----------
    rows, columns : int
        Size of the tile: `rows` × `columns` vectors, each with an accumulator. The processor's registers must
        hold these and `columns` + 1 more.
    a_row, a_depth, b_depth, c_row : int
        Strides: element [i, k] of `a` lies at ``i * a_row + k * a_depth``, row k of `b` at ``k * b_depth``,
        row i of `c` at ``i * c_row``. Rows of `b` and `c` are contiguous.
    accumulate : bool
        Whether to add to the result or to overwrite it.

    Returns
    -------
    function (a, a0, b, b0, c, c0, depth)
        Computes ``c[i, j] (+)= sum over k < depth of a[i, k] * b[k, j]``. The matrices begin at the offsets
        `a0`, `b0` and `c0`.
    """

    def constant(number):
        return ir.Constant(ir.IntType(64), number)

    def products(builder, a, b, k, accumulators):
        """Add row k of `b` times column k of `a` to the accumulators."""
        a_k = builder.gep(a, [builder.mul(k, constant(a_depth))])
        b_k = builder.gep(b, [builder.mul(k, constant(b_depth))])
        vectors = [emit_load(builder, builder.gep(b_k, [constant(j * LANES)])) for j in range(columns)]
        sums = []
        for i in range(rows):
            scalar = emit_splat(builder, builder.load(builder.gep(a_k, [constant(i * a_row)])))
            for j in range(columns):
                sums.append(emit_fma(builder, scalar, vectors[j], accumulators[i * columns + j]))
        return sums

    def generate(context, builder, signature, args):
        a, b, c = (emit_address(context, builder, signature.args[i], *args[i : i + 2]) for i in (0, 2, 4))
        depth = args[6]
        results = [
            builder.gep(c, [constant(i * c_row + j * LANES)]) for i in range(rows) for j in range(columns)
        ]
        zero = ir.Constant(VECTOR, [0.0] * LANES)
        start = [emit_load(builder, result) if accumulate else zero for result in results]

        before = builder.block
        loop, after = builder.append_basic_block("depth"), builder.append_basic_block("depth.done")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(ir.IntType(64))
        k.add_incoming(constant(0), before)
        accumulators = [builder.phi(VECTOR) for _ in results]
        for accumulator, value in zip(accumulators, start, strict=True):
            accumulator.add_incoming(value, before)
        sums = products(builder, a, b, k, accumulators)
        following = builder.add(k, constant(1))
        k.add_incoming(following, loop)
        for accumulator, value in zip(accumulators, sums, strict=True):
            accumulator.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)

        builder.position_at_end(after)
        for value, result in zip(sums, results, strict=True):
            emit_store(builder, value, result)
        return context.get_dummy_value()

    @intrinsic
    def tile(typing, a, a0, b, b0, c, c0, depth):
        integer = types.intp
        return types.none(a, integer, b, integer, c, integer, integer), generate

    return tile


def _compiled_apart(function, inputs, outputs):
    """Compile the function of one pair of channel numbers under a name of its own.

    Numba makes a symbol from a function's name, its types and a number that it counts in each process. If
    several processes fill the cache on disk, two functions of one name can have the same number. The linker
    would then take the machine code of one for both, and results would be wrong.
    """
    function.__qualname__ = f"{function.__name__}_{inputs}_{outputs}"
    return njit(function)


def _make_multiply(inputs, outputs):
    """`multiply` for one pair of channel numbers."""
    width = panel_width(outputs)
    strides = {"a_row": inputs, "a_depth": 1, "b_depth": width, "c_row": outputs}
    double = _product_tile(2 * TILE_ROWS, width // LANES, **strides)
    single = _product_tile(TILE_ROWS, width // LANES, **strides)

    def multiply(v, u, m, slots, rows, ahead):
        for position in range(POSITIONS):
            _fetch(ahead, position)
            for j in range(0, outputs, width):
                at_u = (position * outputs + j) * inputs
                for i in range(0, rows, 2 * TILE_ROWS):
                    at_v, to = (position * slots + i) * inputs, (position * slots + i) * outputs + j
                    if i + 2 * TILE_ROWS <= rows:
                        double(v, at_v, u, at_u, m, to, inputs)
                    else:
                        single(v, at_v, u, at_u, m, to, inputs)

    return _compiled_apart(multiply, inputs, outputs)


def _make_accumulate(inputs, outputs):
    """`accumulate_weight_gradient` for one pair of channel numbers."""
    width = panel_width(outputs)
    strides = {"a_row": 1, "a_depth": inputs, "b_depth": outputs, "c_row": width}
    tile = _product_tile(_GRADIENT_ROWS, width // LANES, **strides, accumulate=True)

    def accumulate(v, z, du, slots, first, tiles):
        for position in range(POSITIONS):
            at_v, at_z = (position * slots + first) * inputs, (position * slots + first) * outputs
            for j in range(0, outputs, width):
                to = (position * outputs + j) * inputs
                for i in range(0, inputs, _GRADIENT_ROWS):
                    tile(v, at_v + i, z, at_z + j, du, to + i * width, tiles)

    return _compiled_apart(accumulate, inputs, outputs)


_multiply_16_32, _multiply_32_16 = _make_multiply(16, 32), _make_multiply(32, 16)
_multiply_32_64, _multiply_64_32 = _make_multiply(32, 64), _make_multiply(64, 32)
_accumulate_16_32, _accumulate_32_64 = _make_accumulate(16, 32), _make_accumulate(32, 64)


@njit
def multiply(v, u, m, slots, rows, inputs, outputs, ahead):
    """M = V · U at each of the 36 positions: (rows, inputs) · (inputs, outputs), `rows` of `slots`."""
    if inputs == 16:
        _multiply_16_32(v, u, m, slots, rows, ahead)
    elif inputs == 64:
        _multiply_64_32(v, u, m, slots, rows, ahead)
    elif outputs == 16:
        _multiply_32_16(v, u, m, slots, rows, ahead)
    else:
        _multiply_32_64(v, u, m, slots, rows, ahead)


@njit
def accumulate_weight_gradient(v, z, du, slots, first, tiles, inputs):
    """dU += Vᵀ · Z at each of the 36 positions: (inputs, tiles) · (tiles, 2 · inputs).

    The tiles begin with the number `first`.
    """
    if inputs == 16:
        _accumulate_16_32(v, z, du, slots, first, tiles)
    else:
        _accumulate_32_64(v, z, du, slots, first, tiles)
