"""Vectors of float32 in Numba, one machine register or a few each.

LLVM's own vectoriser follows heuristics that cost speed here: on Intel processors it avoids 512-bit
registers, and it spills the accumulators of a matrix product to memory. So the kernels use vectors
explicitly: a value of type `vec` is `LANES` floats, with the operators ``+ - *`` and the functions `fma`,
`load` and `store`.

Arrays have any number of dimensions and are contiguous, or views whose rows are: `row_of` tells how far
these are apart. Offsets count floats from an array's first. They are not checked.
"""

import operator

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from srmnist.engine.cpu.compiled import processor

# Floats in a register: AVX-512, AVX, or the 128 bits that every 64-bit processor has. AVX has 16 registers,
# the others have 32. (SSE without AVX has 16 too, but no x86 processor of the last ten years is limited to
# SSE.)
_FEATURES = processor()[1].split(",")
_AVX512, _AVX = "+avx512f" in _FEATURES, "+avx" in _FEATURES
LANES = 16 if _AVX512 else 8 if _AVX else 4
REGISTERS = 16 if _AVX and not _AVX512 else 32

CACHE_LINE = 16  # floats
_FLOAT = 4  # bytes

VECTOR = ir.VectorType(ir.FloatType(), LANES)
_MASK = ir.VectorType(ir.IntType(32), LANES)
_UNDEFINED = ir.Constant(VECTOR, ir.Undefined)


class _VecType(types.Type):
    def __init__(self):
        super().__init__(f"float32x{LANES}")


vec = _VecType()


@register_model(_VecType)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, VECTOR)


# The functions emit_… write LLVM instructions into the function that is being compiled.
def emit_address(context, builder, array_type, array, offset):
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.gep(data, [offset])


def emit_load(builder, address):
    value = builder.load(builder.bitcast(address, VECTOR.as_pointer()))
    value.align = 4
    return value


def emit_store(builder, value, address):
    builder.store(value, builder.bitcast(address, VECTOR.as_pointer())).align = 4


def emit_splat(builder, scalar):
    first = builder.insert_element(_UNDEFINED, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, _UNDEFINED, ir.Constant(_MASK, [0] * LANES))


def emit_fma(builder, a, b, c):
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    return builder.call(
        cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32"), [a, b, c]
    )


@intrinsic
def load(typing, array, offset):
    """The `LANES` floats from an array's offset on."""

    def generate(context, builder, signature, args):
        return emit_load(builder, emit_address(context, builder, signature.args[0], *args))

    return vec(array, types.intp), generate


@intrinsic
def store(typing, array, offset, value):
    """Write a vector into an array, from an offset on."""

    def generate(context, builder, signature, args):
        emit_store(builder, args[2], emit_address(context, builder, signature.args[0], *args[:2]))
        return context.get_dummy_value()

    return types.none(array, types.intp, vec), generate


@intrinsic
def splat(typing, scalar):
    """A vector whose lanes all hold the same float."""

    def generate(context, builder, signature, args):
        return emit_splat(builder, args[0])

    return vec(types.float32), generate


@intrinsic
def broadcast(typing, array, offset):
    """A vector whose lanes all hold the float at an array's offset."""

    def generate(context, builder, signature, args):
        return emit_splat(builder, builder.load(emit_address(context, builder, signature.args[0], *args)))

    return vec(array, types.intp), generate


@intrinsic
def fma(typing, a, b, c):
    """a * b + c, rounded once where the processor can."""

    def generate(context, builder, signature, args):
        return emit_fma(builder, *args)

    return vec(vec, vec, vec), generate


@intrinsic
def where_positive(typing, condition, value):
    """`value` in the lanes where `condition` > 0, 0 in the others."""

    def generate(context, builder, signature, args):
        zero = ir.Constant(VECTOR, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered(">", args[0], zero), args[1], zero)

    return vec(vec, vec), generate


@intrinsic
def total(typing, value):
    """The sum of a vector's lanes."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), VECTOR])
        name = f"llvm.vector.reduce.fadd.v{LANES}f32"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [ir.Constant(ir.FloatType(), 0.0), args[0]], fastmath=("reassoc",))

    return types.float32(vec), generate


def _prefetch(write):
    @intrinsic
    def prefetch(typing, array, offset):
        """Let the processor fetch the cache line at an array's offset into the L2 cache, without waiting."""

        def generate(context, builder, signature, args):
            pointer = ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [pointer, *[ir.IntType(32)] * 3])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
            address = emit_address(context, builder, signature.args[0], *args)
            numbers = [ir.Constant(ir.IntType(32), number) for number in (write, 2, 1)]
            builder.call(function, [builder.bitcast(address, pointer), *numbers])
            return context.get_dummy_value()

        return types.none(array, types.intp), generate

    return prefetch


prefetch_to_read, prefetch_to_write = _prefetch(0), _prefetch(1)


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


@njit
def load_three(array, offset, stride):
    """The vectors at three offsets, `stride` apart."""
    return load(array, offset), load(array, offset + stride), load(array, offset + 2 * stride)


@njit
def store_three(array, offset, stride, values):
    """Write three vectors at three offsets, `stride` apart."""
    first, second, third = values
    store(array, offset, first)
    store(array, offset + stride, second)
    store(array, offset + 2 * stride, third)


@njit
def row_of(array):
    """The distance between the rows of an array or a view, in floats."""
    return array.strides[0] // _FLOAT
