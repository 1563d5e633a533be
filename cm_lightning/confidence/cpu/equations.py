"""A frame's equations in compiled passes, for the CPU.

The same as :class:`cm_lightning.confidence.weights.WeightFunction` followed by
:func:`cm_lightning.confidence.graph.make_graph`, which work on whole batches of NumPy or CuPy arrays; here a thread
sets up one frame's without holding the GIL.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.boundary import Boundary, rectangle_around
from cm_lightning.confidence.graph import RandomWalkGraph, boundary_conditions
from cm_lightning.confidence.problem import Problem, System
from cm_lightning.confidence.weights import EDGE_ENDS, EDGE_FLOOR, EDGE_STEPS, WeightFunction

Numbers = NDArray[Any]


def set_up(problem: Problem, index: int) -> System | None:
    """Set up one frame's equations.

    Args:
        problem: The input of a call.
        index: The frame's number.

    Returns:
        The equations, ``(depth, lateral)``; None if the frame's domain is empty.
    """
    boundary = problem.boundary.take(slice(index, index + 1))
    if not boundary.domain.any():
        return None
    place = (index, *rectangle_around(boundary.domain[0]))
    boundary = boundary.crop(*place[1:])
    image = problem.intensities(problem.frames[place])
    values, graph = frame_equations(problem.weight_function, image, boundary)
    return System(place, image, boundary.domain[0], values, graph)


def frame_equations(
    weight_function: WeightFunction, frame: NDArray[np.float64], boundary: Boundary
) -> tuple[NDArray[np.float64], RandomWalkGraph]:
    """Set up one frame's equations.

    Args:
        weight_function: How intensities become weights.
        frame: Intensities, ``(depth, lateral)``.
        boundary: The frame's masks, of length 1; its domain is not empty.

    Returns:
        The known values (0 elsewhere), and the system.
    """
    domain, source, sink, reaches_source, reaches_sink = (
        np.ascontiguousarray(getattr(boundary, name)[0]) for name in boundary.__dataclass_fields__
    )
    virtual = weight_function.formulation == "realtime"
    conditions = boundary_conditions(domain, source, sink, reaches_source, reaches_sink, virtual)
    image = np.empty(frame.shape)
    decay = weight_function.decay(domain)[:, 0]
    _weigh_intensity(frame, domain, decay, weight_function.normalise == "frame", image)
    largest, exists = _largest_steps(image, domain)
    scale, penalties = weight_function.exponent(
        dict(zip(EDGE_ENDS, largest, strict=True)), dict(zip(EDGE_ENDS, exists, strict=True))
    )
    edges = {name: np.zeros(frame[start].shape) for name, (start, _) in EDGE_ENDS.items()}
    graph = RandomWalkGraph(**edges, slack=conditions.slack, unknown=conditions.unknown, right=conditions.right)
    _weigh_edges(
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
def _weigh_intensity(frame: Numbers, domain: Numbers, decay: Numbers, rescale: bool, image: Numbers) -> None:
    """Bring intensities to 0 to 1 and weight them by depth; 0 outside the domain."""
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
    unit = 1.0 / (highest - lowest)
    for row in range(depth):
        for column in range(lateral):
            inside = domain[row, column]
            image[row, column] = (frame[row, column] - lowest) * unit * decay[row] if inside else 0.0


@njit(cache=True, nogil=True)
def _largest_steps(image: Numbers, domain: Numbers) -> tuple[Numbers, Numbers]:
    """Find the largest step of each kind of edge, and whether there is such an edge."""
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
def _weigh_edges(
    image: Numbers,
    domain: Numbers,
    values: Numbers,
    scale: float,
    penalties: Numbers,
    floor: float,
    graph: RandomWalkGraph,
) -> None:
    """Compute every edge's weight and add it where it belongs: between unknown pixels, or to their slack."""
    depth, lateral = image.shape
    unknown = graph.unknown
    for kind in range(4):
        down, right = EDGE_STEPS[kind]
        penalty = penalties[kind]
        into = graph.vertical
        if kind == 1:
            into = graph.horizontal
        elif kind == 2:
            into = graph.down_right
        elif kind == 3:
            into = graph.down_left
        first_column = max(0, -right)
        for row in range(depth - down):
            for column in range(first_column, lateral - max(0, right)):
                other_row, other = row + down, column + right
                if domain[row, column] and domain[other_row, other]:
                    first, second = unknown[row, column], unknown[other_row, other]
                    if first or second:
                        step = abs(image[row, column] - image[other_row, other])
                        weight = np.exp(-scale * step - penalty) + floor
                        if first and second:
                            into[row, column - first_column] = weight
                        elif first:
                            graph.slack[row, column] += weight
                            graph.right[row, column] += weight * values[other_row, other]
                        else:
                            graph.slack[other_row, other] += weight
                            graph.right[other_row, other] += weight * values[row, column]
