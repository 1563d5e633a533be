"""From edge weights and boundary to the linear system of a random walk."""

from typing import Any, NamedTuple

import numpy as np

from cm_lightning.confidence.arrays import array_namespace
from cm_lightning.confidence.weights import EDGE_ENDS, EdgeWeights

# A NumPy or CuPy array: everything here runs on both.
Array = Any


class RandomWalkGraph(NamedTuple):
    """The linear systems of frames, as weights between pixels.

    The matrix has ``slack_i + sum_j w_ij`` on its diagonal and ``-w_ij`` beside it; it is never formed.

    Attributes:
        vertical: Weights as in :class:`cm_lightning.confidence.weights.EdgeWeights`, but only between unknown pixels;
            ``(..., depth - 1, lateral)``.
        horizontal: The same, ``(..., depth, lateral - 1)``.
        down_right: The same, ``(..., depth - 1, lateral - 1)``.
        down_left: The same, ``(..., depth - 1, lateral - 1)``.
        slack: Sum of each unknown pixel's weights to pixels of known value, ``(..., depth, lateral)``.
        unknown: Pixels to solve for, ``(..., depth, lateral)``.
        right: The right-hand side: sum of each unknown pixel's weights to pixels of known value, times that value.
    """

    vertical: Array
    horizontal: Array
    down_right: Array
    down_left: Array
    slack: Array
    unknown: Array
    right: Array


class BoundaryConditions(NamedTuple):
    """What the boundary alone says about a system, before any edge weight is known.

    Attributes:
        values: Known values, 0 elsewhere, float64, ``(..., depth, lateral)``.
        unknown: Pixels to solve for.
        slack: Sum of each unknown pixel's weights to virtual nodes, float64.
        right: The same times the nodes' values.
    """

    values: Array
    unknown: Array
    slack: Array
    right: Array


def boundary_conditions(
    domain: Array, source: Array, sink: Array, reaches_source: Array, reaches_sink: Array, virtual: bool
) -> BoundaryConditions:
    """Find the pixels whose value needs no solving, and the links to a virtual boundary.

    Args:
        domain: Insonified pixels, ``(..., depth, lateral)``.
        source: Pixels of the domain at the probe.
        sink: Pixels of the domain where a walk is lost.
        reaches_source: Pixels whose connected part of the domain holds a source.
        reaches_sink: The same for a sink.
        virtual: Whether source and sink are nodes of their own behind these pixels, of value 1 and 0 and linked to each
            with weight 1, rather than the pixels themselves.

    Returns:
        The conditions, in arrays of their own.
    """
    unknown = domain & reaches_source & reaches_sink
    values = (domain & reaches_source & ~reaches_sink).astype(np.float64)
    # Unlike zeros_like, zeros leaves memory untouched that nobody writes to, as most of this is.
    xp = array_namespace(values)
    slack, right = xp.zeros(values.shape), xp.zeros(values.shape)
    if virtual:
        right += source & unknown
        slack += right
        slack += sink & unknown
    else:
        unknown = unknown & ~source & ~sink
        values[source] = 1.0
    return BoundaryConditions(values, unknown, slack, right)


def make_graph(weights: EdgeWeights, conditions: BoundaryConditions) -> RandomWalkGraph:
    """Set up the linear systems.

    Args:
        weights: Edge weights of the frames, ``(..., depth, lateral)`` but for the shorter axes.
        conditions: The boundary's, ``(..., depth, lateral)``; ``slack`` and ``right`` are changed and kept.

    Returns:
        The systems.
    """
    values, unknown, slack, right = conditions
    between = {}
    for name, (start, end) in EDGE_ENDS.items():
        weight = getattr(weights, name)
        both = unknown[start] & unknown[end]
        between[name] = weight * both
        outward = weight - between[name]
        for near, far in ((start, end), (end, start)):
            flow = outward * unknown[near]
            slack[near] += flow
            right[near] += flow * values[far]
    return RandomWalkGraph(**between, slack=slack, unknown=unknown, right=right)


def mirror(graph: RandomWalkGraph) -> RandomWalkGraph:
    """Reverse the order of columns.

    Args:
        graph: The systems.

    Returns:
        The same systems on mirrored grids, in arrays of their own.
    """
    mirrored = RandomWalkGraph(*(array[..., ::-1].copy() for array in graph))
    return mirrored._replace(down_right=mirrored.down_left, down_left=mirrored.down_right)


def diagonal(graph: RandomWalkGraph) -> Array:
    """Sum up the diagonals of the matrices.

    Args:
        graph: The systems.

    Returns:
        The diagonals, ``(..., depth, lateral)``.
    """
    total = graph.slack.copy()
    for name, ends in EDGE_ENDS.items():
        for end in ends:
            total[end] += getattr(graph, name)
    return total


def contrast(graph: RandomWalkGraph) -> Array:
    """Divide the smallest weight of each system by its largest.

    Args:
        graph: The systems.

    Returns:
        Quotients, ``(...)``; 1 for systems without any weight.
    """
    smallest: Array = np.inf
    largest: Array = 0.0
    for name in (*EDGE_ENDS, "slack"):
        weight = getattr(graph, name)
        if weight.size:
            smallest = np.minimum(smallest, np.where(weight > 0, weight, np.inf).min(axis=(-2, -1)))
            largest = np.maximum(largest, weight.max(axis=(-2, -1)))
    return np.where(largest > 0, smallest / np.where(largest > 0, largest, 1.0), 1.0)


def weight_gradients(adjoint: Array, maps: Array) -> EdgeWeights:
    """Differentiate by the weights.

    With ``A x = b`` and ``A l = dL/dx``, ``dL/dw_ij = -(l_i - l_j) (x_i - x_j)``, where ``l`` is 0 and ``x`` its value
    at pixels of known value.

    Args:
        adjoint: ``l``, ``(..., depth, lateral)``, 0 outside the unknown pixels.
        maps: ``x``, same shape.

    Returns:
        The derivatives, at every edge.
    """
    return EdgeWeights(
        **{
            name: -(adjoint[start] - adjoint[end]) * (maps[start] - maps[end])
            for name, (start, end) in EDGE_ENDS.items()
        }
    )
