"""Tests of the compiled assembly against the one with arrays."""

import numpy as np
import pytest

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.confidence.cpu.equations import assemble, from_lanes
from cm_lightning.confidence.cpu.threads import ONE_THREAD, Workers
from cm_lightning.confidence.cpu.vectors import LANES
from cm_lightning.confidence.graph import boundary_conditions
from cm_lightning.confidence.problem import Problem
from tests.confidence.graphs import make_graph

BOX = (slice(0, 70), slice(0, 33))


@pytest.mark.parametrize("lanes", [1, LANES])
@pytest.mark.parametrize("normalise", ["frame", "fixed"])
@pytest.mark.parametrize("formulation", ["reference", "paper", "realtime"])
def test_equations_equal_those_of_arrays(rng, formulation, normalise, lanes):
    count = min(lanes, 3)
    frames = rng.random((count, 70, 33))
    frames[-1] = 0.5  # constant
    domain = rng.random((1, 70, 33)) < 0.9
    domain[0, [0, -1]] = True
    solver = ConfidenceMapSolver(formulation=formulation, normalise=normalise, beta=90.0)
    problem = Problem(solver, frames, np.broadcast_to(domain, frames.shape), None, None)
    boundary = problem.boundary
    names = ("domain", "source", "sink", "reaches_source", "reaches_sink")
    masks = [np.broadcast_to(getattr(boundary, name), frames.shape) for name in names]
    expected = make_graph(
        problem.weight_function(frames, masks[0]), boundary_conditions(*masks, formulation == "realtime")
    )
    with Workers(2) as workers:
        group = assemble(problem, list(range(count)), [BOX] * count, lanes, workers)
    single = assemble(problem, list(range(count)), [BOX] * count, lanes, ONE_THREAD)
    for name, array in group.graph._asdict().items():
        in_frames = from_lanes(array, lanes)
        np.testing.assert_allclose(in_frames[:count], getattr(expected, name), rtol=1e-13, atol=1e-320, err_msg=name)
        assert not in_frames[count:].any()
        np.testing.assert_array_equal(array, getattr(single.graph, name))
    assert not from_lanes(group.graph.unknown, lanes)[count:].any()
