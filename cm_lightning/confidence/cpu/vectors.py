"""Vectors of LANES values in compiled code.

Numba leaves vectorisation to LLVM, which does not vectorise short loops over arrays that may overlap. This module adds
a type for vectors to Numba, whose operations are single vector instructions (or a few, for float64). Arrays of vectors
have the shape ``(rows, LANES)``; an index is the number of a row. In one-dimensional arrays, an index is the position
of the first of LANES values. Indices are not checked.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, config, types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

# Fast-math flags of compiled code. There are no NaN and infinity: all sums have positive terms that are far below the
# largest number, and there is no division by 0. If the input is out of range, the solution is not finite, and is
# rejected.
FAST = {"contract", "nsz", "arcp", "reassoc", "nnan", "ninf"}


def _has_wide_vectors() -> bool:
    """Return whether compiled code uses vector registers of 64 bytes (AVX-512) rather than at most 32 bytes."""
    name = vars(config).get("CPU_NAME")
    if name:
        return "avx512" in name or name in ("znver4", "znver5", "sapphirerapids", "cascadelake")
    return bool(binding.get_host_cpu_features().get("avx512f", False))


# Number of values of a vector. In float32, a vector fills a register.
LANES = 16 if _has_wide_vectors() else 8
# Rows of a block of a front, and rows and columns of a block of lanes, that are updated at a time. The processor has 32
# registers of 64 bytes, or 16 of 32 bytes; most of them hold the block.
FRONT_ROWS = 8 if _has_wide_vectors() else 4
BLOCK_ROWS, BLOCK_COLUMNS = (4, 4) if _has_wide_vectors() else (3, 3)

# Size of a cache line in bytes.
CACHE_LINE = 64

_INT = ir.IntType(64)


def aligned_empty(shape: int | tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Allocate an array that starts at a cache line, so that no vector extends over two cache lines.

    Args:
        shape: Shape of the array.
        dtype: Type of its values.

    Returns:
        Array with arbitrary values.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = np.empty(size + CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % CACHE_LINE
    return buffer[start : start + size].view(dtype).reshape(shape)


class VectorType(types.Type):
    """Type of a vector in compiled code.

    Args:
        dtype: Type of its values.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype}, {LANES})")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    """Representation of a vector in LLVM."""

    def __init__(self, manager: Any, vector: VectorType) -> None:
        element = ir.FloatType() if vector.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, vector, ir.VectorType(element, LANES))  # type: ignore[no-untyped-call]


class _Array:
    """Argument of an intrinsic function that is an array.

    Args:
        context: Target context of Numba.
        builder: Builder of LLVM instructions.
        array_type: Numba's type of the array.
        value: The argument.
    """

    def __init__(self, context: Any, builder: Any, array_type: Any, value: Any) -> None:
        self.builder = builder
        self.element = context.get_data_type(array_type.dtype)
        self.vector = ir.VectorType(self.element, LANES)
        self.size = context.get_abi_sizeof(self.element)
        self.step = LANES if array_type.ndim == 2 else 1
        self.data = make_array(array_type)(context, builder, value).data  # type: ignore[no-untyped-call]

    def _pointer(self, index: Any) -> Any:
        address = self.builder.gep(self.data, [self.builder.mul(index, ir.Constant(_INT, self.step))])
        return self.builder.bitcast(address, self.vector.as_pointer())

    def load(self, index: Any) -> Any:
        """Return the vector at an index."""
        return self.builder.load(self._pointer(index), align=self.size)

    def store(self, value: Any, index: Any) -> None:
        """Store a vector at an index."""
        self.builder.store(value, self._pointer(index), align=self.size)

    def load_everywhere(self, index: Any) -> Any:
        """Return the value at a position of a one-dimensional array, in all lanes."""
        value = self.builder.load(self.builder.gep(self.data, [index]), align=self.size)
        return _fill_vector(self.builder, value, self.vector)


def _fill_vector(builder: Any, value: Any, vector: Any) -> Any:
    """Return a vector whose values are equal."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def _add_of_product(builder: Any, first: Any, second: Any, third: Any) -> Any:
    return builder.fadd(builder.fmul(first, second, flags=("fast",)), third, flags=("fast",))


def _variable(builder: Any, value: Any) -> Any:
    """Return the address of a new variable, which is a register in optimised code."""
    return cgutils.alloca_once_value(builder, value)  # type: ignore[no-untyped-call]


def _load(typing_context: Any, array: Any, index: Any) -> Any:
    """Return the vector at an index of an array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _Array(context, builder, signature.args[0], arguments[0]).load(arguments[1])

    return VectorType(array.dtype)(array, types.int64), generate


load: Any = intrinsic(_load)


def _store(typing_context: Any, array: Any, index: Any, vector: Any) -> Any:
    """Store a vector at an index of an array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _Array(context, builder, signature.args[0], arguments[0]).store(arguments[2], arguments[1])
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), generate


store: Any = intrinsic(_store)


def _fill(typing_context: Any, value: Any) -> Any:
    """Return a vector whose values are equal to a float32 or float64 number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _fill_vector(builder, arguments[0], context.get_value_type(signature.return_type))

    return VectorType(value)(value), generate


fill: Any = intrinsic(_fill)


def _operation(operate: Callable[[Any, Any], Any]) -> Any:
    """Return an intrinsic function of two vectors."""

    def function(typing_context: Any, first: Any, second: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return operate(builder, arguments)

        return first(first, second), generate

    return intrinsic(function)


add: Any = _operation(lambda builder, arguments: builder.fadd(*arguments, flags=("fast",)))
multiply: Any = _operation(lambda builder, arguments: builder.fmul(*arguments, flags=("fast",)))
# The first vector where it is larger than the second one, 0 elsewhere.
above: Any = _operation(
    lambda builder, arguments: builder.select(
        builder.fcmp_ordered(">", *arguments), arguments[0], ir.Constant(arguments[0].type, [0.0] * LANES)
    )
)


def _multiply_add(typing_context: Any, first: Any, second: Any, third: Any) -> Any:
    """Return ``first * second + third``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _add_of_product(builder, *arguments)

    return first(first, second, third), generate


multiply_add: Any = intrinsic(_multiply_add)


def _inverse_or_zero(typing_context: Any, vector: Any) -> Any:
    """Return ``1 / vector``, and 0 where it is not positive."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (values,) = arguments
        zero, one = (ir.Constant(values.type, [number] * LANES) for number in (0.0, 1.0))
        return builder.select(builder.fcmp_ordered(">", values, zero), builder.fdiv(one, values), zero)

    return vector(vector), generate


inverse_or_zero: Any = intrinsic(_inverse_or_zero)


def _transpose(typing_context: Any, source: Any, row: Any, target: Any, start: Any, step: Any) -> Any:
    """Write LANES rows of an array of vectors as columns.

    Lane ``l`` of the rows from ``row`` on is written to the one-dimensional array ``target`` from position ``start + l
    * step`` on.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first = _Array(context, builder, signature.args[0], arguments[0])
        second = _Array(context, builder, signature.args[2], arguments[2])
        vectors = [first.load(builder.add(arguments[1], ir.Constant(_INT, k))) for k in range(LANES)]
        # Exchange of blocks of 1, 2, 4, ... lanes between pairs of vectors.
        width = 1
        while width < LANES:
            for k in (k for k in range(LANES) if not k & width):
                low = [lane if not lane & width else LANES + (lane ^ width) for lane in range(LANES)]
                high = [lane ^ width if not lane & width else LANES + lane for lane in range(LANES)]
                pair = vectors[k], vectors[k | width]
                for target_index, lanes in ((k, low), (k | width, high)):
                    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes)
                    vectors[target_index] = builder.shuffle_vector(*pair, mask)
            width *= 2
        for k, vector in enumerate(vectors):
            second.store(vector, builder.add(arguments[3], builder.mul(arguments[4], ir.Constant(_INT, k))))
        return context.get_dummy_value()

    return types.void(source, types.int64, target, types.int64, types.int64), generate


transpose: Any = intrinsic(_transpose)


def _products(rows: int, columns: int, corner: bool) -> Any:
    """Return an intrinsic function that adds products of weights and ratios to a block of vectors."""
    entries = [(r, c) for r in range(rows) for c in range(columns) if not corner or r < c]

    def function(
        typing_context: Any,
        target: Any,
        starts: Any,
        weights: Any,
        weight: Any,
        weight_step: Any,
        ratios: Any,
        ratio: Any,
        ratio_step: Any,
        pivots: Any,
    ) -> Any:
        """Add products to the vectors ``target[starts[r] + c]`` of the rows ``r`` and columns ``c`` of a block.

        These are ``sum_k weights[weight + k weight_step + r] ratios[ratio + k ratio_step + c]``, with ``r < c`` for a
        corner.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            block, left, right = (_Array(context, builder, signature.args[k], arguments[k]) for k in (0, 2, 5))
            (_, first, _, weight, weight_step, _, ratio, ratio_step, pivots) = arguments

            def place(entry: tuple[int, int]) -> Any:
                return builder.add(builder.extract_value(first, entry[0]), ir.Constant(_INT, entry[1]))

            sums = {entry: _variable(builder, block.load(place(entry))) for entry in entries}
            with cgutils.for_range(builder, pivots, intp=_INT) as loop:
                row = builder.add(weight, builder.mul(loop.index, weight_step))
                column = builder.add(ratio, builder.mul(loop.index, ratio_step))
                factors = {r: left.load(builder.add(row, ir.Constant(_INT, r))) for r in {r for r, _ in entries}}
                values = {c: right.load(builder.add(column, ir.Constant(_INT, c))) for c in {c for _, c in entries}}
                for (r, c), total in sums.items():
                    builder.store(_add_of_product(builder, factors[r], values[c], builder.load(total)), total)
            for entry, total in sums.items():
                block.store(builder.load(total), place(entry))
            return context.get_dummy_value()

        integers = (types.int64,) * 2
        place_type = types.UniTuple(types.int64, rows)  # type: ignore[no-untyped-call]
        return types.void(target, place_type, weights, *integers, ratios, *integers, types.int64), generate

    return intrinsic(function)


# Updates of blocks of lanes: all columns, the last columns of a row of blocks, a single vector, and the upper triangle.
add_block: Any = _products(BLOCK_ROWS, BLOCK_COLUMNS, corner=False)
add_block_column: Any = _products(BLOCK_ROWS, 1, corner=False)
add_vector: Any = _products(1, 1, corner=False)
add_corner: Any = _products(BLOCK_ROWS, BLOCK_ROWS, corner=True)


def _front_products(rows: int, columns: int) -> Any:
    """Return an intrinsic function that adds products of weights and ratios to a block of a front."""

    def function(
        typing_context: Any,
        front: Any,
        start: Any,
        stride: Any,
        weights: Any,
        weight: Any,
        ratios: Any,
        ratio: Any,
        ratio_step: Any,
        pivots: Any,
    ) -> Any:
        """Add products to the vectors ``front[start + r stride + c LANES]`` of a block of rows ``r`` and columns ``c``.

        These are ``sum_k weights[weight + k FRONT_ROWS + r] ratios[ratio + c ratio_step + k LANES]``. All arrays have
        one dimension; weights are single values.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            block, left, right = (_Array(context, builder, signature.args[k], arguments[k]) for k in (0, 3, 5))
            (_, start, stride, _, weight, _, ratio, ratio_step, pivots) = arguments
            entries = [(r, c) for r in range(rows) for c in range(columns)]

            def place(entry: tuple[int, int]) -> Any:
                row = builder.add(start, builder.mul(stride, ir.Constant(_INT, entry[0])))
                return builder.add(row, ir.Constant(_INT, entry[1] * LANES))

            sums = {entry: _variable(builder, block.load(place(entry))) for entry in entries}
            with cgutils.for_range(builder, pivots, intp=_INT) as loop:
                row = builder.add(weight, builder.mul(loop.index, ir.Constant(_INT, FRONT_ROWS)))
                column = builder.add(ratio, builder.mul(loop.index, ir.Constant(_INT, LANES)))
                values = [
                    right.load(builder.add(column, builder.mul(ratio_step, ir.Constant(_INT, c))))
                    for c in range(columns)
                ]
                for r in range(rows):
                    factor = left.load_everywhere(builder.add(row, ir.Constant(_INT, r)))
                    for c in range(columns):
                        total = sums[r, c]
                        builder.store(_add_of_product(builder, factor, values[c], builder.load(total)), total)
            for entry, total in sums.items():
                block.store(builder.load(total), place(entry))
            return context.get_dummy_value()

        integers = (types.int64,) * 2
        return types.void(front, *integers, weights, types.int64, ratios, *integers, types.int64), generate

    return intrinsic(function)


# Updates of blocks of fronts, of FRONT_ROWS rows or a single row, and three, two or one vectors.
add_rows_3: Any = _front_products(FRONT_ROWS, 3)
add_rows_2: Any = _front_products(FRONT_ROWS, 2)
add_rows_1: Any = _front_products(FRONT_ROWS, 1)
add_row_3: Any = _front_products(1, 3)
add_row_2: Any = _front_products(1, 2)
add_row_1: Any = _front_products(1, 1)
