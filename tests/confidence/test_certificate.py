"""Proven error bounds, with the products and factors of both engines."""

from types import SimpleNamespace

import numpy as np
import pytest

from cm_lightning.confidence.certificate import certify
from cm_lightning.confidence.cpu.conjugate_gradients import multiply
from cm_lightning.confidence.cpu.factorisation import TreeFactorisation
from cm_lightning.confidence.cpu.threads import ONE_THREAD
from cm_lightning.confidence.cuda.arena import Arena
from cm_lightning.confidence.cuda.iteration import BatchSystem
from cm_lightning.confidence.cuda.memory import arena_bytes
from cm_lightning.confidence.graph import RandomWalkGraph, diagonal, mirror
from tests.confidence.graphs import exact_values, random_graph

SHAPE = (40, 17)


def gpu_systems(device, graphs, precision):
    """Return the systems of graphs on the device of the GPU."""
    graph = RandomWalkGraph(*(np.stack(arrays) for arrays in zip(*graphs, strict=True)))
    arena = Arena(device, len(graphs) * arena_bytes(SHAPE, precision))
    invalid, underflowed, no_skips = arena.zeros((3, len(graphs)), np.int32)
    batch = SimpleNamespace(
        graph=graph._replace(unknown=graph.unknown.astype(np.uint8)),
        arena=arena,
        invalid=invalid,
        underflowed=underflowed,
        no_skips=no_skips,
    )
    return BatchSystem(device, batch, precision)


def cpu_bound(graph, x, precision):
    """Return the bound with the product and the factor of the CPU."""
    factorisation = TreeFactorisation(SHAPE, precision, 1)
    assert factorisation.factorise(graph, ONE_THREAD) == [0]

    def solve(vector, _):
        return factorisation.solve(vector, ONE_THREAD)

    def product(v, result, magnitude, _):
        multiply(graph, v, result, 1, ONE_THREAD, magnitude)

    return float(certify(graph, graph.rhs, x, product, solve, np.zeros((), np.int32)))


def test_bounds_of_wrong_solutions_are_valid_and_tight(rng):
    graph = random_graph(rng, SHAPE, 4)
    exact = exact_values(graph)
    for size in (0.0, 1e-9, 1e-3, 1.0):
        perturbed = exact + size * rng.standard_normal(exact.shape)
        assert np.abs(perturbed - exact).max() <= cpu_bound(graph, perturbed, np.float64)
        # The bound is tight for residuals of one sign.
        error = size * exact.max()
        bound = cpu_bound(graph, (1 + size) * exact, np.float64)
        assert error <= bound <= 1.3 * error + 1e-10


# In float32, the factors have different rounding errors, which affect differences between neighbours in v.
@pytest.mark.parametrize(("precision", "tolerance"), [(np.float32, 0.1), (np.float64, 1e-6)])
def test_bounds_of_both_engines_agree(device, rng, precision, tolerance):
    graphs = [random_graph(rng, SHAPE, decades) for decades in (1, 3, 5)]
    exact = [exact_values(graph) for graph in graphs]
    perturbed = [x + size * rng.standard_normal(SHAPE) for x, size in zip(exact, (1e-9, 1e-6, 1e-2), strict=True)]
    expected = [cpu_bound(graph, x, precision) for graph, x in zip(graphs, perturbed, strict=True)]
    batch = gpu_systems(device, graphs, precision)
    bound = batch.certify(np.stack(perturbed))
    np.testing.assert_allclose(bound, expected, rtol=tolerance)
    error = np.abs(np.stack(perturbed) - np.stack(exact)).max(axis=(1, 2))
    assert (error <= bound).all()
    assert (error <= expected).all()


def test_bound_is_infinite_without_a_factor(device, rng):
    graphs = [random_graph(rng, SHAPE, 2) for _ in range(2)]
    for array in graphs[1]:
        array[...] = 0  # pixels without weights
    graphs[1].unknown[...] = True
    batch = gpu_systems(device, graphs, np.float32)
    with np.errstate(invalid="ignore"):  # infinity times 0
        bound = batch.certify(batch.conjugate_gradients(1e-3).values)
    assert bound[0] < 1e-4
    assert np.isinf(bound[1])


def test_diagonal_and_mirror_equal_those_of_the_matrix(rng):
    graph = random_graph(rng, SHAPE, 2)
    x = rng.standard_normal(SHAPE)
    product, mirrored_product = np.empty(SHAPE), np.empty(SHAPE)
    multiply(graph, x, product, 1, ONE_THREAD)
    multiply(mirror(graph), x[:, ::-1].copy(), mirrored_product, 1, ONE_THREAD)
    np.testing.assert_allclose(mirrored_product[:, ::-1], product, rtol=1e-12)
    for pixel in ((0, 0), (3, 16), (10, 8), (19, 5)):
        unit = np.zeros(SHAPE)
        unit[pixel] = 1.0
        multiply(graph, unit, product, 1, ONE_THREAD)
        assert product[pixel] == pytest.approx(diagonal(graph)[pixel], rel=1e-12)
