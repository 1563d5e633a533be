"""Public interface of the solver, and properties of confidence maps."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_lightning.confidence import ConfidenceMapSolver, column_sink, column_source
from cm_lightning.confidence.cpu import solver as cpu_solver
from cm_lightning.confidence.cpu.vectors import LANES
from cm_lightning.confidence.problem import SolverParameters

FORMULATIONS = ["reference", "paper", "realtime"]


def test_sink_of_minimum_intensity_in_narrow_frames(rng):
    frame = rng.random((12, 5))
    sink = np.zeros(frame.shape, dtype=bool)
    sink[-1, frame[-1].argmin()] = True
    np.testing.assert_array_equal(ConfidenceMapSolver(sink="min")(frame), ConfidenceMapSolver()(frame, sink=sink))


def test_presets_have_the_published_parameters():
    reference, paper, realtime = (ConfidenceMapSolver.preset(name) for name in FORMULATIONS)
    assert (reference.alpha, reference.beta) == (2.0, 90.0)
    assert (paper.formulation, paper.normalise) == ("paper", "frame")
    assert (realtime.formulation, realtime.normalise) == ("realtime", "fixed")
    assert ConfidenceMapSolver.preset("paper", beta=5.0).beta == 5.0


def test_missed_tolerance_causes_a_warning(rng, monkeypatch):
    failed = np.full(LANES, np.inf)
    solutions = cpu_solver.Solutions(np.zeros((6, 5 * LANES)), np.full(LANES, 3), failed, failed, failed > 0)
    monkeypatch.setattr(cpu_solver.CompiledSolver, "__call__", lambda *_, **__: solutions)
    with pytest.warns(UserWarning, match=r"1 of 1 frames do not reach the tolerance of 0\.001"):
        ConfidenceMapSolver()(rng.random((6, 5)))


def test_info_has_the_leading_shape(rng):
    _, info = ConfidenceMapSolver().solve(rng.random((2, 3, 9, 8)))
    for value in (info.iterations, info.error_estimate, info.error_bound, info.fallback):
        assert value.shape == (2, 3)
    assert (info.iterations >= 1).all()
    assert np.isnan(info.error_bound).all()


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**16),
    levels=st.sampled_from([1, 2, 3, 256]),
    share=st.sampled_from([0.3, 0.7, 1.0]),
)
def test_maps_of_random_frames_and_domains_are_probabilities(shape, seed, levels, share):
    rng = np.random.default_rng(seed)
    frame = rng.integers(levels, size=shape).astype(float)
    domain = rng.random(shape) < share
    walk = ConfidenceMapSolver(beta=200.0)(frame, domain)
    assert np.isfinite(walk).all()
    assert walk.min() >= 0
    assert walk.max() <= 1
    assert (walk[~domain] == 0).all()
    assert (walk[column_source(domain)] == 1).all()
    assert (walk[column_sink(domain) & ~column_source(domain)] == 0).all()


def test_values_are_between_those_of_the_neighbours(rng):
    walk = ConfidenceMapSolver(tolerance=1e-9)(rng.random((25, 18)))
    inner = walk[1:-1, 1:-1]
    neighbours = np.stack(
        [walk[1 + i : 24 + i, 1 + j : 17 + j] for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    )
    assert (inner <= neighbours.max(axis=0) + 1e-9).all()
    assert (inner >= neighbours.min(axis=0) - 1e-9).all()


def test_mirrored_frame_has_mirrored_map(rng):
    frame = rng.random((24, 17))
    solver = ConfidenceMapSolver()
    np.testing.assert_allclose(solver(frame[:, ::-1]), solver(frame)[:, ::-1], atol=1e-9)


def test_pixels_outside_the_domain_have_no_effect(rng):
    crop = rng.random((20, 15))
    frame = rng.random((32, 25)) * 5 - 2  # arbitrary values outside the domain
    frame[4:24, 3:18] = crop
    domain = np.zeros(frame.shape, dtype=bool)
    domain[4:24, 3:18] = True
    for solver in (ConfidenceMapSolver(), ConfidenceMapSolver(mode="RF"), ConfidenceMapSolver(sink="min")):
        np.testing.assert_array_equal(solver(frame, domain)[4:24, 3:18], solver(crop))


def test_masked_marks_have_no_effect_on_other_pixels(rng):
    frame = rng.random((30, 30))
    mark = np.zeros(frame.shape, dtype=bool)
    mark[12:15, 12:15] = True
    marked = np.where(mark, 40.0, frame)
    solver = ConfidenceMapSolver()
    np.testing.assert_array_equal(solver(marked, ~mark), solver(frame, ~mark))


def test_domain_with_a_connection_of_one_pixel():
    domain = np.zeros((9, 9), dtype=bool)
    domain[:4] = domain[5:] = True
    domain[4, 4] = True
    walk = ConfidenceMapSolver()(np.zeros((9, 9)), domain)
    assert 0 < walk[5, 4] < walk[4, 4] < walk[3, 4] < 1


def test_components_without_source_or_sink():
    frame = np.random.default_rng(0).random((9, 9))
    domain = np.zeros((9, 9), dtype=bool)
    domain[:, :3] = domain[:, 6:] = True
    left, right = np.zeros_like(domain), np.zeros_like(domain)
    left[0, :3], right[8, 6:] = True, True
    walk = ConfidenceMapSolver()(frame, domain, source=left, sink=right)
    assert (walk[:, :3] == 1).all()
    assert (walk[:, 3:] == 0).all()


def test_masks_for_all_frames_or_for_each_frame(rng):
    frames = rng.random((3, 12, 11))
    domains = rng.random((3, 12, 11)) < 0.8
    solver = ConfidenceMapSolver()
    shared, separate = solver(frames, domains[0]), solver(frames, domains)
    for index in range(3):
        np.testing.assert_array_equal(shared[index], solver(frames[index], domains[0]))
        np.testing.assert_array_equal(separate[index], solver(frames[index], domains[index]))
    assert not ConfidenceMapSolver()(frames, np.zeros((12, 11), dtype=bool)).any()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.uint8, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_maps_of_tensors_are_tensors(dtype, expected):
    frames = torch.randint(0, 200, (2, 1, 8, 6)).to(dtype)
    maps = ConfidenceMapSolver()(frames)
    assert isinstance(maps, torch.Tensor)
    assert maps.dtype == expected
    np.testing.assert_allclose(maps.numpy(), ConfidenceMapSolver()(frames.double().numpy()), atol=1e-6)


def test_fixed_scale_of_integers(rng):
    frame = rng.integers(256, size=(15, 14), dtype=np.uint8)
    solver = ConfidenceMapSolver.preset("realtime")
    np.testing.assert_allclose(solver(frame), solver(frame / 255), atol=1e-6)


def test_parameters_and_comparison_of_solvers():
    solver = ConfidenceMapSolver(0.2, 400.0, sink="mid")
    assert list(asdict(solver)) == list(asdict(SolverParameters()))
    assert asdict(solver) == asdict(SolverParameters()) | {"alpha": 0.2, "beta": 400.0, "sink": "mid"}
    assert solver == ConfidenceMapSolver(alpha=0.2, beta=400.0, sink="mid") != ConfidenceMapSolver()
