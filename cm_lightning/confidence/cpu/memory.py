"""How much memory a frame takes."""

import numpy as np

from cm_lightning.confidence.cpu.elimination import make_factor, make_workspace
from cm_lightning.confidence.dissection import dissect


def bytes_per_frame(shape: tuple[int, int], precision: type[np.float32] | type[np.float64]) -> int:
    """Count the memory that a frame in flight takes on the CPU.

    Args:
        shape: ``(depth, lateral)`` of the rectangle around the frame's domain.
        precision: Type of the factor: float32 for conjugate gradients, float64 for the direct solve; a frame that falls
            back to that takes both.

    Returns:
        Bytes of factor, buffers, weights and vectors, without the plan that all frames of a shape share.
    """
    dissection = dissect(*shape)
    arrays = [*make_factor(dissection, precision), *make_workspace(dissection, precision)]
    # In float64: four weights, slack, right-hand side, known values and frame; then solution, residual, direction and
    # product, of which the direct solve has two.
    doubles = 8 + (2 if precision is np.float64 else 4)
    return int(sum(array.nbytes for array in arrays)) + doubles * 8 * shape[0] * shape[1]
