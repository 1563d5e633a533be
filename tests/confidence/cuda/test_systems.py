"""Linear systems that the kernels assemble, against those that are assembled with arrays."""

import numpy as np
import pytest

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.confidence.cuda.systems import group_frames, set_up
from cm_lightning.confidence.graph import boundary_conditions
from cm_lightning.confidence.problem import Problem
from tests.confidence.graphs import make_graph
from tests.confidence.masks import masks_of


@pytest.mark.parametrize("kind", ["band", "fan", "parts", "one side without source"])
@pytest.mark.parametrize("normalise", ["frame", "fixed"])
@pytest.mark.parametrize("formulation", ["reference", "paper", "realtime"])
def test_systems_equal_those_of_arrays(device, rng, formulation, normalise, kind):
    frames = rng.random((4, 60, 33))
    frames[2] = 0.5  # constant
    masks = masks_of(kind, frames.shape[1:], rng)
    two = {name: np.stack([mask, mask, mask, mask[:, ::-1]]) for name, mask in masks.items()}
    solver = ConfidenceMapSolver(formulation=formulation, normalise=normalise, beta=90.0)
    problem = Problem(solver, frames, two.get("domain"), two.get("source"), two.get("sink"))
    groups = group_frames(problem.boundary, 1.0)
    assert sorted(frame for _, members in groups for frame in members) == [0, 1, 2, 3]
    for rectangle, members in groups:
        batch = set_up(device, problem, rectangle, members, np.float32)
        masks = problem.boundary.crop(members, [rectangle] * len(members))
        parts = [np.broadcast_to(mask, (len(members), *mask.shape[1:])) for mask in masks]
        expected = make_graph(
            problem.weight_function(frames[(members, *rectangle)], parts[0]),
            boundary_conditions(*parts, formulation == "realtime"),
        )
        for name, array in batch.graph._asdict().items():
            np.testing.assert_allclose(array, getattr(expected, name), rtol=1e-12, atol=1e-300, err_msg=name)


def test_ill_conditioned_systems_are_found(device, rng):
    frames = rng.integers(256, size=(3, 30, 25)).astype(float)
    frames[1] = 7.0
    problem = Problem(ConfidenceMapSolver.preset("paper", gamma=0.0), frames, None, None, None)
    batch = set_up(device, problem, (slice(0, 30), slice(0, 25)), [0, 1, 2], np.float64)
    assert batch.ill_conditioned.tolist() == [True, False, True]
