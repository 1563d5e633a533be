"""Tests of the elimination against exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from cm_lightning.confidence.weights import EDGE_ENDS
from tests.confidence.graphs import exact_values, random_graph


def exact_solution(graph):
    """Solve a linear system by Gaussian elimination with rational numbers."""
    shape = graph.slack.shape
    indices = np.arange(np.prod(shape)).reshape(shape)
    size = indices.size
    rows = [[Fraction(0)] * (size + 1) for _ in range(size)]
    for p in range(size):
        rows[p][p] = Fraction(float(graph.slack.flat[p]))
        rows[p][size] = Fraction(float(graph.rhs.flat[p]))
    for name, (start, end) in EDGE_ENDS.items():
        weights = getattr(graph, name)
        for p, q, weight in zip(indices[start].flat, indices[end].flat, weights.flat, strict=True):
            exact = Fraction(float(weight))
            for a, b in ((p, q), (q, p)):
                rows[a][a] += exact
                rows[a][b] -= exact
    for p in range(size):
        for q in range(size):
            if q != p and rows[q][p]:
                ratio = rows[q][p] / rows[p][p]
                rows[q] = [x - ratio * y if y else x for x, y in zip(rows[q], rows[p], strict=True)]
    return np.array([float(rows[p][size] / rows[p][p]) for p in range(size)]).reshape(shape)


@pytest.mark.parametrize("decades", [3, 20, 60])
def test_relative_accuracy_of_every_entry_for_any_range_of_weights(rng, decades):
    graph = random_graph(rng, (9, 5), decades)
    expected = exact_solution(graph)
    solution = exact_values(graph)
    np.testing.assert_allclose(solution, expected, rtol=1e-12)
