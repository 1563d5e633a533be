"""Linear systems of random walks, from edge weights and boundary conditions."""

from typing import Any, NamedTuple

import numpy as np

from cm_lightning.confidence.arrays import array_namespace
from cm_lightning.confidence.weights import EDGE_ENDS, EdgeWeights

# A NumPy or CuPy array. All functions of this module support both.
Array = Any


class RandomWalkGraph(NamedTuple):
    """Linear systems of frames, represented by the weights between pixels.

    The diagonal entries of the matrix are ``slack_i + sum_j w_ij``, and its off-diagonal entries are ``-w_ij``. The
    matrix is not stored.

    Attributes:
        vertical: Weights between unknown pixels as in :class:`cm_lightning.confidence.weights.EdgeWeights`,
            ``(..., depth - 1, lateral)``.
        horizontal: Weights between unknown pixels, ``(..., depth, lateral - 1)``.
        down_right: Weights between unknown pixels, ``(..., depth - 1, lateral - 1)``.
        down_left: Weights between unknown pixels, ``(..., depth - 1, lateral - 1)``.
        slack: Sum of the weights of an unknown pixel to pixels with known values, ``(..., depth, lateral)``.
        unknown: Pixels with unknown values, ``(..., depth, lateral)``.
        rhs: Right-hand side, ``(..., depth, lateral)``: sum of the weights of an unknown pixel to pixels with known
            values, multiplied by these values.
    """

    vertical: Array
    horizontal: Array
    down_right: Array
    down_left: Array
    slack: Array
    unknown: Array
    rhs: Array


class BoundaryConditions(NamedTuple):
    """Part of a linear system that depends only on the boundary and not on edge weights.

    Attributes:
        values: Known values, 0 elsewhere, float64, ``(..., depth, lateral)``.
        unknown: Pixels with unknown values, bool, ``(..., depth, lateral)``.
        slack: Sum of the weights of each unknown pixel to virtual nodes, float64, ``(..., depth, lateral)``.
        rhs: Sum of these weights multiplied by the values of the nodes, float64, ``(..., depth, lateral)``.
    """

    values: Array
    unknown: Array
    slack: Array
    rhs: Array


def boundary_conditions(
    domain: Array, source: Array, sink: Array, reaches_source: Array, reaches_sink: Array, virtual: bool
) -> BoundaryConditions:
    """Find the known values, and the connections to virtual source and sink nodes.

    Args:
        domain: Insonified pixels, ``(..., depth, lateral)``.
        source: Pixels of the domain at the probe, ``(..., depth, lateral)``.
        sink: Pixels of the domain at which random walks end, ``(..., depth, lateral)``.
        reaches_source: Pixels whose connected component contains a source, ``(..., depth, lateral)``.
        reaches_sink: Pixels whose connected component contains a sink, ``(..., depth, lateral)``.
        virtual: Whether source and sink are virtual nodes with the values 1 and 0, which are connected to the source
            and sink pixels by edges of weight 1, rather than these pixels themselves.

    Returns:
        The boundary conditions, in new arrays.
    """
    unknown = domain & reaches_source & reaches_sink
    values = (domain & reaches_source & ~reaches_sink).astype(np.float64)
    # Unlike zeros_like, zeros does not access memory that is not written later, which is most of it.
    xp = array_namespace(values)
    slack, rhs = xp.zeros(values.shape), xp.zeros(values.shape)
    if virtual:
        rhs += source & unknown
        slack += rhs
        slack += sink & unknown
    else:
        unknown = unknown & ~source & ~sink
        values[source] = 1.0
    return BoundaryConditions(values, unknown, slack, rhs)


def mirror(graph: RandomWalkGraph) -> RandomWalkGraph:
    """Reverse the order of columns.

    Args:
        graph: Linear systems.

    Returns:
        Mirrored linear systems, in new arrays.
    """
    mirrored = RandomWalkGraph(*(array[..., ::-1].copy() for array in graph))
    return mirrored._replace(down_right=mirrored.down_left, down_left=mirrored.down_right)


def diagonal(graph: RandomWalkGraph) -> Array:
    """Compute the diagonals of the matrices.

    Args:
        graph: Linear systems.

    Returns:
        Diagonals, ``(..., depth, lateral)``.
    """
    total = graph.slack.copy()
    for name, ends in EDGE_ENDS.items():
        for end in ends:
            total[end] += getattr(graph, name)
    return total


def weight_ratio(graph: RandomWalkGraph) -> Array:
    """Compute the ratio of the smallest positive weight to the largest weight of each system.

    Args:
        graph: Linear systems.

    Returns:
        Ratios, ``(...)``; 1 for systems without positive weights.
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
    """Compute the gradient of a loss ``L`` with respect to the edge weights.

    With ``A x = b`` and ``A l = dL/dx``, it is ``dL/dw_ij = -(l_i - l_j) (x_i - x_j)``. At pixels with known values,
    ``l`` is 0, and ``x`` is the known value.

    Args:
        adjoint: Adjoint solution ``l``, ``(..., depth, lateral)``, 0 outside the unknown pixels.
        maps: Confidence maps ``x``, ``(..., depth, lateral)``.

    Returns:
        Gradient for every edge.
    """
    return EdgeWeights(
        **{
            name: -(adjoint[start] - adjoint[end]) * (maps[start] - maps[end])
            for name, (start, end) in EDGE_ENDS.items()
        }
    )
