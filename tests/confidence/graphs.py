"""Random linear systems with weights of very different sizes."""

import numpy as np

from cm_lightning.confidence.cpu.equations import from_lanes, to_lanes
from cm_lightning.confidence.cpu.solver import CompiledSolver
from cm_lightning.confidence.graph import RandomWalkGraph
from cm_lightning.confidence.weights import EDGE_ENDS


def in_lanes(graphs, lanes):
    """Return graphs of the same shape as one graph of interleaved systems."""
    return RandomWalkGraph(*(to_lanes(np.stack(arrays), lanes) for arrays in zip(*graphs, strict=True)))


def exact_values(graph):
    """Return the solution of the direct method on the CPU."""
    solver = CompiledSolver(graph.slack.shape)
    solutions = solver(in_lanes([graph], solver.lanes), "direct", 1e-3)
    return from_lanes(solutions.values, solver.lanes)[0]


def random_graph(rng, shape, decades):
    """Return a system with random weights between ``10**-decades`` and 1."""
    depth, lateral = shape

    def weights(*size):
        return 10 ** (-decades * rng.random(size))

    slack = np.zeros(shape)
    slack[0] = weights(lateral)
    right = slack.copy()
    slack[-1] += weights(lateral)
    return RandomWalkGraph(
        weights(depth - 1, lateral),
        weights(depth, lateral - 1),
        weights(depth - 1, lateral - 1),
        weights(depth - 1, lateral - 1),
        slack,
        np.ones(shape, dtype=bool),
        right,
    )


def make_graph(weights, conditions):
    """Assemble the linear systems from edge weights and boundary conditions, with arrays."""
    values, unknown, slack, rhs = conditions
    between = {}
    for name, (start, end) in EDGE_ENDS.items():
        weight = getattr(weights, name)
        both = unknown[start] & unknown[end]
        between[name] = weight * both
        outward = weight - between[name]
        for pixel, neighbour in ((start, end), (end, start)):
            flow = outward * unknown[pixel]
            slack[pixel] += flow
            rhs[pixel] += flow * values[neighbour]
    return RandomWalkGraph(**between, slack=slack, unknown=unknown, rhs=rhs)
