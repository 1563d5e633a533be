"""The solver against other implementations, closed forms, and the properties of harmonic functions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.ultrasound_confidence_map import UltrasoundConfidenceMap
from PIL import Image

from cm_lightning.confidence import ConfidenceMapSolver, column_sink, column_source

PARAMETERS = [(0.5, 100.0, 0.05), (2.0, 90.0, 0.03), (0.5, 400.0, 0.0), (0.2, 40.0, 0.1)]


@pytest.mark.parametrize(("alpha", "beta", "gamma"), PARAMETERS)
@pytest.mark.parametrize("shape", [(20, 31), (33, 12), (3, 5), (64, 2)])
def test_equals_monai_direct_solve(rng, alpha, beta, gamma, shape):
    frame = rng.random(shape)
    expected = UltrasoundConfidenceMap(alpha, beta, gamma)(frame)
    np.testing.assert_allclose(ConfidenceMapSolver(alpha, beta, gamma)(frame), expected, atol=1e-6)


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


def test_flat_frame_falls_linearly():
    # All edges of a kind weigh the same, so the walk is unbiased and the map linear in depth.
    walk = ConfidenceMapSolver()(np.full((11, 7), 3.0))
    np.testing.assert_allclose(walk, np.repeat(np.linspace(1, 0, 11)[:, None], 7, axis=1), atol=1e-9)


def test_one_column_is_a_chain_of_resistors():
    frame = np.array([0.0, 0.4, 1.0, 0.2, 0.6])[:, None]
    walk = ConfidenceMapSolver(alpha=1.5, beta=7.0)(frame)
    image = frame[:, 0] * (1 - np.exp(-1.5 * np.linspace(0, 1, 5)))
    steps = np.abs(np.diff(image))
    resistance = 1 / (np.exp(-7.0 * steps / steps.max()) + 1e-5)
    expected = 1 - np.concatenate([[0], np.cumsum(resistance)]) / resistance.sum()
    np.testing.assert_allclose(walk[:, 0], expected, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    seed=st.integers(0, 2**16),
    levels=st.sampled_from([1, 2, 3, 256]),
    share=st.sampled_from([0.3, 0.7, 1.0]),
)
def test_any_frame_and_domain_gives_a_probability(shape, seed, levels, share):
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


def test_values_lie_between_those_of_neighbours(rng):
    walk = ConfidenceMapSolver()(rng.random((25, 18)))
    inner = walk[1:-1, 1:-1]
    around = np.stack(
        [walk[1 + i : 24 + i, 1 + j : 17 + j] for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    )
    assert (inner <= around.max(axis=0) + 1e-12).all()
    assert (inner >= around.min(axis=0) - 1e-12).all()


def test_mirrored_frame_has_mirrored_map(rng):
    frame = rng.random((24, 17))
    solver = ConfidenceMapSolver()
    np.testing.assert_allclose(solver(frame[:, ::-1]), solver(frame)[:, ::-1], atol=1e-9)


def test_bands_change_nothing(rng):
    crop = rng.random((20, 15))
    frame = rng.random((32, 25)) * 5 - 2  # whatever stands in the bands
    frame[4:24, 3:18] = crop
    domain = np.zeros(frame.shape, dtype=bool)
    domain[4:24, 3:18] = True
    solver = ConfidenceMapSolver()
    np.testing.assert_array_equal(solver(frame, domain)[4:24, 3:18], solver(crop))


def test_batch_equals_single_frames_bit_for_bit(rng):
    frames = rng.random((2, 3, 15, 11))
    solver = ConfidenceMapSolver()
    batch = solver(frames)
    for index in np.ndindex(2, 3):
        np.testing.assert_array_equal(batch[index], solver(frames[index]))


def test_parts_without_source_or_sink():
    frame = np.random.default_rng(0).random((9, 9))
    domain = np.zeros((9, 9), dtype=bool)
    domain[:, :3] = domain[:, 6:] = True
    left, right = np.zeros_like(domain), np.zeros_like(domain)
    left[0, :3], right[8, 6:] = True, True
    walk = ConfidenceMapSolver()(frame, domain, source=left, sink=right)
    assert (walk[:, :3] == 1).all()
    assert (walk[:, 3:] == 0).all()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.uint8, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_tensor_in_tensor_out(dtype, expected):
    frames = torch.randint(0, 200, (2, 1, 8, 6)).to(dtype)
    maps = ConfidenceMapSolver()(frames)
    assert isinstance(maps, torch.Tensor)
    assert maps.dtype == expected
    np.testing.assert_allclose(maps.numpy(), ConfidenceMapSolver()(frames.double().numpy()), atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_frame_is_named(rng, bad):
    frames = rng.random((2, 3, 8, 6))
    frames[1, 2, 3, 3] = bad
    with pytest.raises(ValueError, match=r"frame \(1, 2\)"):
        ConfidenceMapSolver()(frames)


def test_refuses_bad_parameters_and_masks(rng):
    with pytest.raises(ValueError, match="beta must be a finite number"):
        ConfidenceMapSolver(beta=-1.0)
    with pytest.raises(ValueError, match=r"domain of shape \(3, 3\)"):
        ConfidenceMapSolver()(rng.random((4, 4)), np.ones((3, 3), dtype=bool))
    with pytest.raises(ValueError, match="depth, lateral"):
        ConfidenceMapSolver()(np.ones(4))
