"""Assembly of the linear system of a frame by compiled functions, for the CPU.

The result is the same as that of :class:`cm_lightning.confidence.weights.WeightFunction` and
:func:`cm_lightning.confidence.graph.make_graph`, which process batches of NumPy or CuPy arrays. The functions of this
module process one frame without holding the GIL.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.boundary import Boundary, bounding_box
from cm_lightning.confidence.graph import RandomWalkGraph, boundary_conditions
from cm_lightning.confidence.problem import Problem, System
from cm_lightning.confidence.weights import EDGE_ENDS, EDGE_FLOOR, EDGE_STEPS, WeightFunction

Array = NDArray[Any]


def set_up(problem: Problem, index: int) -> System | None:
    """Assemble the linear system of a frame on the bounding box of its domain.

    Args:
        problem: Checked input of a call of the solver.
        index: Index of the frame.

    Returns:
        Linear system; None if the domain of the frame is empty.
    """
    boundary = problem.boundary.take(slice(index, index + 1))
    if not boundary.domain.any():
        return None
    location = (index, *bounding_box(boundary.domain[0]))
    boundary = boundary.crop(*location[1:])
    image = problem.intensities(problem.frames[location])
    values, graph = frame_equations(problem.weight_function, image, boundary)
    return System(location, image, boundary.domain[0], values, graph)


def frame_equations(
    weight_function: WeightFunction, frame: NDArray[np.float64], boundary: Boundary
) -> tuple[NDArray[np.float64], RandomWalkGraph]:
    """Assemble the linear system of a frame.

    Args:
        weight_function: Formula for edge weights.
        frame: Intensities, ``(depth, lateral)``.
        boundary: Masks of the frame, ``(1, depth, lateral)`` each. The domain is not empty.

    Returns:
        Known values, 0 elsewhere, ``(depth, lateral)``, and the linear system.
    """
    domain, source, sink, reaches_source, reaches_sink = (
        np.ascontiguousarray(getattr(boundary, name)[0]) for name in boundary.__dataclass_fields__
    )
    virtual = weight_function.formulation == "realtime"
    conditions = boundary_conditions(domain, source, sink, reaches_source, reaches_sink, virtual)
    image = np.empty(frame.shape)
    decay = weight_function.decay(domain)[:, 0]
    _scale_intensities(frame, domain, decay, weight_function.normalise == "frame", image)
    largest, exists = _largest_steps(image, domain)
    scale, penalties = weight_function.exponent(
        dict(zip(EDGE_ENDS, largest, strict=True)), dict(zip(EDGE_ENDS, exists, strict=True))
    )
    edges = {name: np.zeros(frame[start].shape) for name, (start, _) in EDGE_ENDS.items()}
    graph = RandomWalkGraph(**edges, slack=conditions.slack, unknown=conditions.unknown, rhs=conditions.rhs)
    _add_weights(
        image,
        domain,
        conditions.values,
        float(scale),
        np.array([float(penalty) for penalty in penalties.values()]),
        EDGE_FLOOR[weight_function.formulation],
        graph,
    )
    return conditions.values, graph


@njit(cache=True, nogil=True)
def _scale_intensities(frame: Array, domain: Array, decay: Array, rescale: bool, image: Array) -> None:
    """Scale intensities to the range from 0 to 1 and multiply them by the decay. Set pixels outside the domain to 0."""
    depth, lateral = frame.shape
    lowest, highest = 0.0, 1.0
    if rescale:
        lowest, highest = np.inf, -np.inf
        for row in range(depth):
            for column in range(lateral):
                if domain[row, column]:
                    lowest = min(lowest, frame[row, column])
                    highest = max(highest, frame[row, column])
        if highest <= lowest:
            highest = lowest + 1.0
    factor = 1.0 / (highest - lowest)
    for row in range(depth):
        for column in range(lateral):
            inside = domain[row, column]
            image[row, column] = (frame[row, column] - lowest) * factor * decay[row] if inside else 0.0


@njit(cache=True, nogil=True)
def _largest_steps(image: Array, domain: Array) -> tuple[Array, Array]:
    """Return the largest intensity difference for each kind of edge, and whether such edges exist, ``(4,)`` each."""
    depth, lateral = image.shape
    largest = np.zeros(4)
    exists = np.zeros(4, np.bool_)
    for kind in range(4):
        down, right = EDGE_STEPS[kind]
        for row in range(depth - down):
            for column in range(max(0, -right), lateral - max(0, right)):
                if domain[row, column] and domain[row + down, column + right]:
                    exists[kind] = True
                    step = abs(image[row, column] - image[row + down, column + right])
                    largest[kind] = max(largest[kind], step)
    return largest, exists


@njit(cache=True, nogil=True)
def _add_weights(
    image: Array,
    domain: Array,
    values: Array,
    scale: float,
    penalties: Array,
    floor: float,
    graph: RandomWalkGraph,
) -> None:
    """Compute the weights of all edges.

    Weights between unknown pixels are stored in the graph. Weights between unknown pixels and pixels with known values
    are added to the slack and to the right-hand side.
    """
    depth, lateral = image.shape
    unknown = graph.unknown
    for kind in range(4):
        down, right = EDGE_STEPS[kind]
        penalty = penalties[kind]
        kind_weights = graph.vertical
        if kind == 1:
            kind_weights = graph.horizontal
        elif kind == 2:
            kind_weights = graph.down_right
        elif kind == 3:
            kind_weights = graph.down_left
        first_column = max(0, -right)
        for row in range(depth - down):
            for column in range(first_column, lateral - max(0, right)):
                other_row, other_column = row + down, column + right
                if domain[row, column] and domain[other_row, other_column]:
                    first, second = unknown[row, column], unknown[other_row, other_column]
                    if first or second:
                        step = abs(image[row, column] - image[other_row, other_column])
                        weight = np.exp(-scale * step - penalty) + floor
                        if first and second:
                            kind_weights[row, column - first_column] = weight
                        elif first:
                            graph.slack[row, column] += weight
                            graph.rhs[row, column] += weight * values[other_row, other_column]
                        else:
                            graph.slack[other_row, other_column] += weight
                            graph.rhs[other_row, other_column] += weight * values[row, column]
