"""Multiply-add for all lanes with a single vector instruction.

Numba leaves vectorisation to LLVM, which does not vectorise short loops over arrays that may overlap. This module
therefore generates the vector instruction explicitly.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from cm_lightning.confidence.dissection import LANES


def _add_product(typing_context: Any, target: Any, i: Any, first: Any, j: Any, second: Any, k: Any) -> tuple[Any, Any]:
    """Compute ``target[i] += first[j] * second[k]`` for rows of LANES values.

    All arrays must be C-contiguous and have the same type.

    Args:
        typing_context: Typing context of Numba.
        target: Array that is changed in place, ``(rows, LANES)``.
        i: Row of ``target``.
        first: First factor, ``(rows, LANES)``.
        j: Row of ``first``.
        second: Second factor, ``(rows, LANES)``.
        k: Row of ``second``.

    Returns:
        Signature, and function that generates the instruction.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def row_pointer(argument: int) -> Any:
            array_type = signature.args[argument]
            array = make_array(array_type)(context, builder, arguments[argument])  # type: ignore[no-untyped-call]
            row = builder.sext(arguments[argument + 1], ir.IntType(64))
            address = builder.gep(array.data, [builder.mul(row, ir.Constant(ir.IntType(64), LANES))])
            vector = ir.VectorType(context.get_data_type(array_type.dtype), LANES)
            return builder.bitcast(address, vector.as_pointer())

        size = context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))
        factors = [builder.load(row_pointer(argument), align=size) for argument in (2, 4)]
        target_pointer = row_pointer(0)
        product = builder.fmul(*factors, flags=("fast",))
        total = builder.fadd(builder.load(target_pointer, align=size), product, flags=("fast",))
        builder.store(total, target_pointer, align=size)
        return context.get_dummy_value()

    return types.void(target, types.int64, first, types.int64, second, types.int64), generate


add_product: Any = intrinsic(_add_product)
