"""One multiply-add for all lanes at once.

Numba leaves it to LLVM to find vector instructions, which fails on short loops over arrays that might overlap. Here the
instruction is asked for by name.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from cm_lightning.confidence.dissection import LANES


def _add_product(typing_context: Any, target: Any, i: Any, first: Any, j: Any, second: Any, k: Any) -> tuple[Any, Any]:
    """Compute ``target[i] += first[j] * second[k]`` on rows of LANES numbers.

    Args:
        typing_context: Numba's.
        target: ``(rows, LANES)``, C-contiguous, as the other two and of the same type.
        i: Row of ``target``.
        first: The first factor.
        j: Its row.
        second: The second factor.
        k: Its row.

    Returns:
        The signature, and what writes the instruction.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def pointer(number: int) -> Any:
            array_type = signature.args[number]
            array = make_array(array_type)(context, builder, arguments[number])  # type: ignore[no-untyped-call]
            row = builder.sext(arguments[number + 1], ir.IntType(64))
            address = builder.gep(array.data, [builder.mul(row, ir.Constant(ir.IntType(64), LANES))])
            vector = ir.VectorType(context.get_data_type(array_type.dtype), LANES)
            return builder.bitcast(address, vector.as_pointer())

        size = context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))
        factors = [builder.load(pointer(number), align=size) for number in (2, 4)]
        place = pointer(0)
        product = builder.fmul(*factors, flags=("fast",))
        total = builder.fadd(builder.load(place, align=size), product, flags=("fast",))
        builder.store(total, place, align=size)
        return context.get_dummy_value()

    return types.void(target, types.int64, first, types.int64, second, types.int64), generate


add_product: Any = intrinsic(_add_product)
