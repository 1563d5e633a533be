"""Tests of the factorisations of small and large frames."""

import numpy as np
import pytest

from cm_lightning.confidence.cpu import factorisation
from cm_lightning.confidence.cpu.conjugate_gradients import multiply
from cm_lightning.confidence.cpu.equations import from_lanes, to_lanes
from cm_lightning.confidence.cpu.factorisation import LaneFactorisation, TreeFactorisation, lanes_of
from cm_lightning.confidence.cpu.threads import ONE_THREAD, Workers
from cm_lightning.confidence.cpu.vectors import LANES
from tests.confidence.graphs import in_lanes, random_graph


def arrays_of(value):
    """Yield the arrays in nested containers."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        yield from arrays_of(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from arrays_of(item)


@pytest.mark.parametrize(("precision", "tolerance"), [(np.float32, 3e-5), (np.float64, 1e-11)])
@pytest.mark.parametrize("shape", [(1, 40), (33, 5), (70, 66), (230, 227)])
def test_substitution_solves_the_system(rng, shape, precision, tolerance):
    graph = random_graph(rng, shape, 2)
    rhs = rng.random(shape)
    large = TreeFactorisation(shape, precision, 1)
    assert large.factorise(graph, ONE_THREAD) == [0]
    x = large.solve(rhs, ONE_THREAD)
    product = np.empty(shape)
    multiply(graph, x.astype(np.float64), product, 1, ONE_THREAD)
    assert np.abs(product - rhs).max() < tolerance * np.abs(x).max()

    small = LaneFactorisation(shape, precision)
    assert (small.factorise(in_lanes([graph] * LANES, LANES), ONE_THREAD) == 0).all()
    in_small = from_lanes(small.solve(to_lanes(rhs[None], LANES), ONE_THREAD), LANES)
    np.testing.assert_allclose(in_small[0], x, rtol=100 * tolerance)
    assert not in_small[1:].any()


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(40, 40), (230, 227)])
def test_nothing_is_read_before_it_is_written(rng, shape, precision):
    graph, rhs = random_graph(rng, shape, 3), rng.random(shape)
    results = []
    for value in (0.0, 1e30, np.nan):
        result = TreeFactorisation(shape, precision, 2)
        for array in arrays_of(vars(result)):
            if array.dtype == precision:
                array[...] = value
        # Entries of a panel's weights beyond the front, which do not change the front, may be read.
        with Workers(2) as workers:
            result.factorise(graph, workers)
            results.append(result.solve(rhs, workers).copy())
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_pixels_without_weights_are_counted(rng):
    for shape in ((20, 18), (140, 130)):
        graph = random_graph(rng, shape, 1)
        lanes = lanes_of(shape)
        row, column = shape[0] // 2, 7
        for array in graph[:4]:
            array[max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1] = 0
        frames = in_lanes([random_graph(rng, shape, 1), graph] if lanes > 1 else [graph], lanes)
        counts = factorisation.make_factorisation(shape, np.float32).factorise(frames, ONE_THREAD)
        expected = np.zeros(lanes)
        expected[min(1, lanes - 1)] = 1
        np.testing.assert_array_equal(counts, expected)
