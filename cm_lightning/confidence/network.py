"""From edge weights and boundary to the linear system of a random walk."""

from typing import Any, NamedTuple

import numpy as np

from cm_lightning.confidence.weights import EDGE_ENDS, EdgeWeights

# A NumPy or CuPy array: everything here runs on both.
Array = Any


class Network(NamedTuple):
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


def known_values(
    domain: Array, source: Array, sink: Array, virtual: bool, reaches_source: Array, reaches_sink: Array
) -> tuple[Array, Array]:
    """Find the pixels whose value needs no solving.

    Args:
        domain: Insonified pixels, ``(..., depth, lateral)``.
        source: Pixels of the domain at the probe.
        sink: Pixels of the domain where a walk is lost.
        virtual: Whether source and sink are extra nodes behind these pixels, rather than the pixels themselves.
        reaches_source: Pixels whose connected part of the domain holds a source.
        reaches_sink: The same for a sink.

    Returns:
        The values known (0 elsewhere), float64, and the mask of unknown pixels.
    """
    unknown = domain & reaches_source & reaches_sink
    values = (domain & reaches_source & ~reaches_sink).astype(np.float64)
    if not virtual:
        unknown = unknown & ~source & ~sink
        values[source] = 1.0
    return values, unknown


def make_network(
    weights: EdgeWeights, values: Array, unknown: Array, virtual_source: Array | None, virtual_sink: Array | None
) -> Network:
    """Set up the linear systems.

    Args:
        weights: Edge weights of the frames.
        values: Known values, ``(..., depth, lateral)``.
        unknown: Pixels to solve for.
        virtual_source: Pixels with an edge of weight 1 to a node of value 1, or None.
        virtual_sink: Pixels with an edge of weight 1 to a node of value 0, or None.

    Returns:
        The systems.
    """
    slack = np.zeros_like(values)
    right = np.zeros_like(values)
    between = {}
    for name, (start, end) in EDGE_ENDS.items():
        weight = getattr(weights, name)
        both = unknown[start] & unknown[end]
        between[name] = weight * both
        outward = weight - between[name]
        for here, there in ((start, end), (end, start)):
            flow = outward * unknown[here]
            slack[here] += flow
            right[here] += flow * values[there]
    if virtual_source is not None:
        right += virtual_source & unknown
        slack += virtual_source & unknown
    if virtual_sink is not None:
        slack += virtual_sink & unknown
    return Network(**between, slack=slack, unknown=unknown, right=right)


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
