"""Vectors of float32 in Numba, one machine register or a few each.

Left to itself, LLVM's vectoriser decides by rules of thumb (on Intel it avoids 512-bit registers, and it
spills the accumulators of a matrix product). The kernels say what they mean instead: a value of type `vec`
is `LANES` floats, with ``+ - *``, `fma`, `load` and `store`, and `product_tile` is the inner loop of every
matrix product, with all its accumulators in registers.

Arrays are flat and contiguous; offsets count floats and are not checked.
"""

import operator

from llvmlite import binding, ir
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model


def _features() -> str:
    if config.CPU_FEATURES is not None:
        return config.CPU_FEATURES
    return binding.get_host_cpu_features().flatten()


# Floats in a register: AVX-512, AVX, or the 128 bits that every 64-bit processor has. AVX has 16 registers,
# the others 32 (SSE without AVX has 16 as well, but no machine of the last ten years is limited to it).
_WIDE, _AVX = ("+avx512f" in _features().split(","), "+avx" in _features().split(","))
LANES = 16 if _WIDE else 8 if _AVX else 4
REGISTERS = 16 if _AVX and not _WIDE else 32

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_MASK = ir.VectorType(ir.IntType(32), LANES)
_INT64 = ir.IntType(64)
_UNDEFINED = ir.Constant(_VECTOR, ir.Undefined)


class _VecType(types.Type):
    def __init__(self):
        super().__init__(f"float32x{LANES}")


vec = _VecType()


@register_model(_VecType)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _VECTOR)


def _address(context, builder, array_type, array, offset):
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.gep(data, [offset])


def _load(builder, address):
    value = builder.load(builder.bitcast(address, _VECTOR.as_pointer()))
    value.align = 4
    return value


def _store(builder, value, address):
    builder.store(value, builder.bitcast(address, _VECTOR.as_pointer())).align = 4


def _splat(builder, scalar):
    first = builder.insert_element(_UNDEFINED, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, _UNDEFINED, ir.Constant(_MASK, [0] * LANES))


def _fma(builder, a, b, c):
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    return builder.call(
        cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32"), [a, b, c]
    )


@intrinsic
def load(typing, array, offset):
    """The `LANES` floats of an array from an offset on."""

    def generate(context, builder, signature, args):
        return _load(builder, _address(context, builder, signature.args[0], *args))

    return vec(array, types.intp), generate


@intrinsic
def store(typing, array, offset, value):
    """Write a vector into an array from an offset on."""

    def generate(context, builder, signature, args):
        _store(builder, args[2], _address(context, builder, signature.args[0], *args[:2]))
        return context.get_dummy_value()

    return types.none(array, types.intp, vec), generate


@intrinsic
def splat(typing, scalar):
    """A vector with the same float in every lane."""

    def generate(context, builder, signature, args):
        return _splat(builder, args[0])

    return vec(types.float32), generate


@intrinsic
def fma(typing, a, b, c):
    """a * b + c, rounded once where the processor can."""

    def generate(context, builder, signature, args):
        return _fma(builder, *args)

    return vec(vec, vec, vec), generate


@intrinsic
def where_positive(typing, condition, value):
    """`value` in the lanes where `condition` > 0, else 0."""

    def generate(context, builder, signature, args):
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered(">", args[0], zero), args[1], zero)

    return vec(vec, vec), generate


@intrinsic
def total(typing, value):
    """The sum of a vector's lanes."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), _VECTOR])
        name = f"llvm.vector.reduce.fadd.v{LANES}f32"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [ir.Constant(ir.FloatType(), 0.0), args[0]], fastmath=("reassoc",))

    return types.float32(vec), generate


def _arithmetic(instruction):
    @intrinsic
    def operation(typing, a, b):
        def generate(context, builder, signature, args):
            return getattr(builder, instruction)(*args)

        return vec(vec, vec), generate

    return operation


_add, _sub, _mul = (_arithmetic(name) for name in ("fadd", "fsub", "fmul"))


@overload(operator.add)
def _overload_add(a, b):
    if a is vec and b is vec:
        return lambda a, b: _add(a, b)


@overload(operator.sub)
def _overload_sub(a, b):
    if a is vec and b is vec:
        return lambda a, b: _sub(a, b)


@overload(operator.mul)
def _overload_mul(a, b):
    if a is vec and b is vec:
        return lambda a, b: _mul(a, b)


def product_tile(rows, columns, *, a_row, a_depth, b_depth, c_row, accumulate=False):
    """Make the inner loop of a matrix product, unrolled over a tile of the result.

    Parameters
    ----------
    rows, columns : int
        Size of the tile: `rows` × `columns` vectors, which is also its number of accumulators; with
        `columns` + 1 more they must fit the processor's registers.
    a_row, a_depth, b_depth, c_row : int
        Strides: element [i, k] of `a` lies at ``i * a_row + k * a_depth``, row k of `b` at ``k * b_depth``,
        row i of `c` at ``i * c_row``; rows of `b` and `c` are contiguous.
    accumulate : bool
        Whether to add to the result or to overwrite it.

    Returns
    -------
    function (a, a0, b, b0, c, c0, depth)
        Computes ``c[i, j] (+)= sum over k < depth of a[i, k] * b[k, j]``, the matrices beginning at the
        offsets `a0`, `b0` and `c0`.
    """

    def constant(number):
        return ir.Constant(_INT64, number)

    def generate(context, builder, signature, args):
        a, b, c = (_address(context, builder, signature.args[i], *args[i : i + 2]) for i in (0, 2, 4))
        depth = args[6]
        results = [
            builder.gep(c, [constant(i * c_row + j * LANES)]) for i in range(rows) for j in range(columns)
        ]
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        start = [_load(builder, address) if accumulate else zero for address in results]

        before = builder.block
        loop = builder.append_basic_block("depth")
        after = builder.append_basic_block("depth.done")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(_INT64)
        k.add_incoming(constant(0), before)
        accumulators = [builder.phi(_VECTOR) for _ in results]
        for accumulator, value in zip(accumulators, start, strict=True):
            accumulator.add_incoming(value, before)

        a_k = builder.gep(a, [builder.mul(k, constant(a_depth))])
        b_k = builder.gep(b, [builder.mul(k, constant(b_depth))])
        vectors = [_load(builder, builder.gep(b_k, [constant(j * LANES)])) for j in range(columns)]
        sums = []
        for i in range(rows):
            scalar = _splat(builder, builder.load(builder.gep(a_k, [constant(i * a_row)])))
            sums += [_fma(builder, scalar, vectors[j], accumulators[i * columns + j]) for j in range(columns)]

        following = builder.add(k, constant(1))
        k.add_incoming(following, loop)
        for accumulator, value in zip(accumulators, sums, strict=True):
            accumulator.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
        builder.position_at_end(after)
        for value, address in zip(sums, results, strict=True):
            _store(builder, value, address)
        return context.get_dummy_value()

    @intrinsic
    def tile(typing, a, a0, b, b0, c, c0, depth):
        integer = types.intp
        return types.none(a, integer, b, integer, c, integer, integer), generate

    return tile


@njit
def load_three(array, offset, stride):
    """The vectors at three offsets, `stride` apart."""
    return load(array, offset), load(array, offset + stride), load(array, offset + 2 * stride)
