"""Accuracy of maps, compared with exact solutions, other implementations and closed forms."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.data.ultrasound_confidence_map import UltrasoundConfidenceMap
from PIL import Image

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.confidence.accuracy import is_accepted
from cm_lightning.confidence.cpu import solver as cpu_solver
from cm_lightning.data.phantom import Phantom
from tests.confidence.oracle import dense_map

PARAMETERS = [(0.5, 100.0, 0.05), (2.0, 90.0, 0.03), (0.5, 400.0, 0.0), (0.2, 40.0, 0.1)]
FORMULATIONS = ["reference", "paper", "realtime"]
SIZES = [(1, 1), (1, 7), (7, 1), (2, 2), (3, 3), (8, 8), (5, 31), (33, 2), (17, 16), (4096, 9), (9, 1024), (255, 257)]


def fan(shape):
    row, column = np.ogrid[: shape[0], : shape[1]]
    down, right = row + 0.2 * shape[0], column - shape[1] / 2
    radius, angle = np.hypot(down, right), np.arctan2(right, down)
    return (radius > 0.25 * shape[0]) & (radius < 1.15 * shape[0]) & (abs(angle) < 0.6)


def band(shape):
    mask = np.zeros(shape, dtype=bool)
    mask[shape[0] // 8 : -(shape[0] // 8) or None, shape[1] // 6 : -(shape[1] // 6) or None] = True
    return mask


def grid_frames():
    """Return frames of different kinds."""
    rng = np.random.default_rng(0)
    phantom = Phantom(size=(120, 104, 2)).simulate(0).image[:, :, 0]
    yield "phantom", phantom
    yield "saturated", np.minimum(phantom.astype(float) * 4, 255)
    yield "noise", rng.random((97, 120))
    yield "flat", np.full((64, 60), 3.0)
    yield "three levels", rng.integers(3, size=(128, 120))
    yield "thin", rng.integers(8, size=(512, 16))
    yield "sparse", 255 * (rng.random((100, 100)) < 0.02)
    yield from ((str(size), rng.random(size)) for size in SIZES)


@pytest.mark.parametrize(("name", "frame"), grid_frames(), ids=lambda value: value if isinstance(value, str) else "")
def test_error_is_below_the_tolerance_for_all_parameters(name, frame):
    frame = np.asarray(frame, dtype=float)
    masks = [None, band(frame.shape), fan(frame.shape)] if frame.size > 400 else [None]
    parameters = list(itertools.product((0.2, 0.5, 2.0), (40.0, 100.0, 400.0), (0.0, 0.05, 0.1)))
    if frame.size > 30000:
        parameters = parameters[::8]
    for mask, (alpha, beta, gamma) in itertools.product(masks, parameters):
        exact = ConfidenceMapSolver(alpha, beta, gamma, method="direct")(frame, mask)
        maps, info = ConfidenceMapSolver(alpha, beta, gamma, tolerance=1e-4).solve(frame, mask)
        assert np.abs(maps - exact).max() <= 1e-5
        assert info.error_estimate <= 1e-4
        assert not info.fallback


def test_error_is_below_the_tolerance_for_real_frames(real_data):
    files = sorted((real_data / "usgra_seg" / "images").glob("*.png"))[::60]
    for file, (alpha, beta, gamma) in zip(files, itertools.cycle(PARAMETERS)):
        frame = np.asarray(Image.open(file).convert("L"), dtype=float)
        exact = ConfidenceMapSolver(alpha, beta, gamma, method="direct")(frame)
        maps, info = ConfidenceMapSolver(alpha, beta, gamma).solve(frame, certify=True)
        assert np.abs(maps - exact).max() <= min(1e-5, float(info.error_bound))
        assert info.error_bound < 1e-5
        assert not info.fallback


@pytest.mark.parametrize("method", ["cg", "direct"])
@pytest.mark.parametrize(("alpha", "beta", "gamma"), PARAMETERS)
@pytest.mark.parametrize("shape", [(20, 31), (33, 12), (3, 5), (64, 2)])
def test_equals_monai_direct_solve(rng, alpha, beta, gamma, shape, method):
    frame = rng.random(shape)
    expected = UltrasoundConfidenceMap(alpha, beta, gamma)(frame)
    solver = ConfidenceMapSolver(alpha, beta, gamma, method=method)
    np.testing.assert_allclose(solver(frame), expected, atol=1e-6)


def test_equals_monai_on_a_real_frame(real_data):
    frame = np.asarray(Image.open(real_data / "confidence_reference" / "femur_input.png").convert("L"), dtype=float)
    frame = frame[::3, ::3]
    expected = UltrasoundConfidenceMap(0.5, 100.0, 0.05)(frame)
    np.testing.assert_allclose(ConfidenceMapSolver(0.5, 100.0, 0.05)(frame), expected, atol=1e-6)


@pytest.mark.parametrize(("name", "gamma"), [("neck", 0.03), ("femur", 0.06)])
def test_equals_published_maps(real_data, name, gamma):
    folder = real_data / "confidence_reference"
    frame = np.asarray(Image.open(folder / f"{name}_input.png").convert("L"), dtype=float)
    expected = np.load(folder / f"{name}_result.npy")
    np.testing.assert_allclose(ConfidenceMapSolver(2.0, 90.0, gamma)(frame), expected, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    domain=hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.booleans()),
    levels=st.sampled_from([1, 2, 3, 256]),
    formulation=st.sampled_from(FORMULATIONS),
    fixed=st.booleans(),
    beta=st.sampled_from([0.0, 3.0, 12.0]),
    seed=st.integers(0, 2**16),
)
def test_equals_a_dense_implementation_for_random_domains(domain, levels, formulation, fixed, beta, seed):
    frame = np.random.default_rng(seed).integers(levels, size=domain.shape) / 255
    arguments = {"alpha": 0.7, "beta": beta, "gamma": 0.08, "formulation": formulation}
    expected = dense_map(frame, domain, fixed=fixed, **arguments)
    solver = ConfidenceMapSolver(normalise="fixed" if fixed else "frame", **arguments)
    np.testing.assert_allclose(solver(frame, domain), expected, atol=2e-6)
    maps, info = solver.solve(frame, domain, certify=True)
    assert np.abs(maps - expected).max() <= info.error_bound + 1e-9


@pytest.mark.parametrize("mode", ["all", "mid", "min"])
def test_sinks_equal_monai(rng, mode):
    frame = rng.integers(9, size=(24, 31)).astype(float)
    expected = UltrasoundConfidenceMap(0.5, 90.0, 0.05, sink_mode=mode)(frame)
    np.testing.assert_allclose(ConfidenceMapSolver(beta=90.0, sink=mode)(frame), expected, atol=1e-6)
    mask = np.zeros((24, 31), dtype=bool)
    mask[20, 3:9] = True
    expected = UltrasoundConfidenceMap(0.5, 90.0, 0.05, sink_mode="mask")(frame, mask)
    np.testing.assert_allclose(ConfidenceMapSolver(beta=90.0)(frame, sink=mask), expected, atol=1e-6)


def test_envelope_of_rf_lines_is_along_depth(rng):
    # A sine with an integer number of periods has a constant envelope.
    amplitude = 1 + rng.random(20)
    lines = amplitude * np.sin(2 * np.pi * 7 * np.arange(60) / 60)[:, None]
    expected = ConfidenceMapSolver()(np.tile(amplitude, (60, 1)))
    np.testing.assert_allclose(ConfidenceMapSolver(mode="RF")(lines), expected, atol=1e-6)


@pytest.mark.parametrize("size", [11, 300])
def test_map_of_a_constant_frame_is_linear(size):
    # All edges of a kind have the same weight, so that the map is linear in depth.
    walk = ConfidenceMapSolver()(np.full((size, size - 4), 3.0))
    np.testing.assert_allclose(walk, np.repeat(np.linspace(1, 0, size)[:, None], size - 4, axis=1), atol=1e-9)


@pytest.mark.parametrize("length", [5, 4096])
def test_one_column_equals_a_chain_of_resistors(rng, length):
    frame = rng.random((length, 1))
    frame[0], frame[-1] = 0, 1  # so that it is already normalised
    walk = ConfidenceMapSolver(alpha=1.5, beta=7.0, tolerance=1e-9)(frame)
    image = frame[:, 0] * (1 - np.exp(-1.5 * np.linspace(0, 1, length)))
    steps = np.abs(np.diff(image))
    resistance = 1 / (np.exp(-7.0 * steps / steps.max()) + 1e-5)
    expected = 1 - np.concatenate([[0], np.cumsum(resistance)]) / resistance.sum()
    np.testing.assert_allclose(walk[:, 0], expected, atol=1e-9)


def test_realtime_has_virtual_source_and_sink_nodes():
    walk = ConfidenceMapSolver.preset("realtime", beta=0.0)(np.zeros((4, 1)))
    resistance = np.array([1, *[1 / 1.0001] * 3, 1])
    np.testing.assert_allclose(walk[:, 0], 1 - np.cumsum(resistance)[:-1] / resistance.sum(), atol=1e-9)


def test_ill_conditioned_frames_are_solved_directly(rng):
    frame = rng.random((40, 36))
    frame[12:20, 10:18] += 3.0
    solver = ConfidenceMapSolver(beta=400.0, formulation="paper")
    maps, info = solver.solve(frame)
    assert info.fallback
    assert info.error_estimate < 1e-9
    mirrored = solver(frame[:, ::-1])
    np.testing.assert_allclose(mirrored[:, ::-1], maps, atol=1e-9)


def test_frames_that_do_not_converge_are_solved_directly(rng, monkeypatch):
    frames = rng.random((2, 20, 18))
    exact = ConfidenceMapSolver(method="direct")(frames)
    monkeypatch.setattr(cpu_solver, "MAX_STEPS", 0)
    maps, info = ConfidenceMapSolver().solve(frames)
    assert info.fallback.tolist() == [True, True]
    np.testing.assert_array_equal(maps, exact)


def test_acceptance_of_numbers_and_arrays():
    estimate, bound = np.array([1e-4, 1e-4, 1e-4, 2e-3, np.inf, np.nan]), np.array([np.nan, 5e-4, 2e-3] + 3 * [np.nan])
    expected = [True, True, False, False, False, False]
    assert is_accepted(estimate, bound, 1e-3).tolist() == expected
    assert [bool(is_accepted(float(e), float(b), 1e-3)) for e, b in zip(estimate, bound, strict=True)] == expected
