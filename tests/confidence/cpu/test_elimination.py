"""Elimination in exact arithmetic's company, and the plan that it follows."""

from fractions import Fraction

import numpy as np
import pytest

from cm_lightning.confidence.cpu.conjugate_gradients import certify
from cm_lightning.confidence.cpu.elimination import factorise
from cm_lightning.confidence.cpu.memory import make_factor, make_workspace
from cm_lightning.confidence.cpu.solver import CompiledSolver
from cm_lightning.confidence.dissection import CELL, dissect
from cm_lightning.confidence.network import Network
from cm_lightning.confidence.weights import EDGE_ENDS


def random_network(rng, shape, decades):
    """Weights of any size between 1 and 10 to the minus ``decades``."""
    depth, lateral = shape

    def weights(*size):
        return 10 ** (-decades * rng.random(size))

    slack = np.zeros(shape)
    slack[0] = weights(lateral)
    right = slack.copy()
    slack[-1] += weights(lateral)
    return Network(
        weights(depth - 1, lateral),
        weights(depth, lateral - 1),
        weights(depth - 1, lateral - 1),
        weights(depth - 1, lateral - 1),
        slack,
        np.ones(shape, dtype=bool),
        right,
    )


def exact_solution(network):
    """Gaussian elimination in rational numbers."""
    shape = network.slack.shape
    number = np.arange(np.prod(shape)).reshape(shape)
    size = number.size
    rows = [[Fraction(0)] * (size + 1) for _ in range(size)]
    for p in range(size):
        rows[p][p] = Fraction(float(network.slack.flat[p]))
        rows[p][size] = Fraction(float(network.right.flat[p]))
    for name, (start, end) in EDGE_ENDS.items():
        weights = getattr(network, name)
        for p, q, weight in zip(number[start].flat, number[end].flat, weights.flat, strict=True):
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
def test_every_entry_keeps_its_relative_accuracy_whatever_the_contrast(rng, decades):
    network = random_network(rng, (9, 5), decades)
    expected = exact_solution(network)
    found = CompiledSolver((9, 5), "direct", 1e-3, certify=False)(network).values
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_bound_holds_for_any_wrong_solution_and_is_tight(rng):
    network = random_network(rng, (20, 17), 4)
    dissection = dissect(20, 17)
    shared = (dissection, 1.0, make_factor(dissection, np.float64), make_workspace(dissection, np.float64))
    factorise(network, *shared)
    exact = CompiledSolver((20, 17), "direct", 1e-3, certify=False)(network).values
    for size in (0.0, 1e-9, 1e-3, 1.0):
        wrong = exact + size * rng.standard_normal(exact.shape)
        assert np.abs(wrong - exact).max() <= certify(network, network.right, *shared, wrong)
        # Where the residual has one sign, little is given away.
        error = size * exact.max()
        bound = certify(network, network.right, *shared, (1 + size) * exact)
        assert error <= bound <= 1.3 * error + 1e-10


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (8, 8), (8, 3), (1, 50), (41, 1), (16, 17), (100, 63)])
def test_plan_eliminates_every_pixel_once_and_after_what_it_parts(shape):
    plan = dissect(*shape)
    done = np.zeros(shape, dtype=int)
    for top, left in plan.corners:
        done[top : top + CELL, left : left + CELL] += 1
    for front, (begin, end) in enumerate(zip(plan.start[:-1], plan.start[1:], strict=True)):
        pivots, ring = np.split(plan.nodes[begin:end], [plan.pivots[front]])
        done.flat[pivots] += 1
        assert (plan.children[front] < front).all()
        assert len(np.unique(plan.nodes[begin:end])) == end - begin
        assert not set(pivots) & set(ring)
    assert (done == 1).all()
