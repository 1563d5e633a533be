"""The solver against other implementations, closed forms, and the properties of harmonic functions."""

import itertools
import multiprocessing
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.data.ultrasound_confidence_map import UltrasoundConfidenceMap
from PIL import Image

from cm_lightning.confidence import ConfidenceMapSolver, column_sink, column_source
from cm_lightning.confidence.cpu import solver as compiled
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
    """What a frame can look like."""
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
def test_error_stays_below_the_tolerance_on_the_whole_grid(name, frame):
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


def test_error_stays_below_the_tolerance_on_real_frames(real_data):
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
def test_equals_a_second_implementation_for_any_domain(domain, levels, formulation, fixed, beta, seed):
    frame = np.random.default_rng(seed).integers(levels, size=domain.shape) / 255
    arguments = {"alpha": 0.7, "beta": beta, "gamma": 0.08, "formulation": formulation}
    expected = dense_map(frame, domain, fixed=fixed, **arguments)
    solver = ConfidenceMapSolver(normalise="fixed" if fixed else "frame", **arguments)
    np.testing.assert_allclose(solver(frame, domain), expected, atol=2e-6)
    maps, info = solver.solve(frame, domain, certify=True)
    assert np.abs(maps - expected).max() <= info.error_bound + 1e-9


@pytest.mark.parametrize("mode", ["all", "mid", "min"])
def test_sinks_are_those_of_monai(rng, mode):
    frame = rng.integers(9, size=(24, 31)).astype(float)
    expected = UltrasoundConfidenceMap(0.5, 90.0, 0.05, sink_mode=mode)(frame)
    np.testing.assert_allclose(ConfidenceMapSolver(beta=90.0, sink=mode)(frame), expected, atol=1e-6)
    mask = np.zeros((24, 31), dtype=bool)
    mask[20, 3:9] = True
    expected = UltrasoundConfidenceMap(0.5, 90.0, 0.05, sink_mode="mask")(frame, mask)
    np.testing.assert_allclose(ConfidenceMapSolver(beta=90.0)(frame, sink=mask), expected, atol=1e-6)


def test_sink_of_least_intensity_also_in_narrow_frames(rng):
    frame = rng.random((12, 5))
    sink = np.zeros(frame.shape, dtype=bool)
    sink[-1, frame[-1].argmin()] = True
    np.testing.assert_array_equal(ConfidenceMapSolver(sink="min")(frame), ConfidenceMapSolver()(frame, sink=sink))


def test_radio_frequency_lines_are_demodulated_along_depth(rng):
    # Whole periods of a tone have a constant envelope.
    amplitude = 1 + rng.random(20)
    lines = amplitude * np.sin(2 * np.pi * 7 * np.arange(60) / 60)[:, None]
    expected = ConfidenceMapSolver()(np.tile(amplitude, (60, 1)))
    np.testing.assert_allclose(ConfidenceMapSolver(mode="RF")(lines), expected, atol=1e-6)


@pytest.mark.parametrize("size", [11, 300])
def test_flat_frame_falls_linearly(size):
    # All edges of a kind weigh the same, so the walk is unbiased and the map linear in depth.
    walk = ConfidenceMapSolver()(np.full((size, size - 4), 3.0))
    np.testing.assert_allclose(walk, np.repeat(np.linspace(1, 0, size)[:, None], size - 4, axis=1), atol=1e-9)


@pytest.mark.parametrize("length", [5, 4096])
def test_one_column_is_a_chain_of_resistors(rng, length):
    frame = rng.random((length, 1))
    frame[0], frame[-1] = 0, 1  # so that it is normalised already
    walk = ConfidenceMapSolver(alpha=1.5, beta=7.0, tolerance=1e-9)(frame)
    image = frame[:, 0] * (1 - np.exp(-1.5 * np.linspace(0, 1, length)))
    steps = np.abs(np.diff(image))
    resistance = 1 / (np.exp(-7.0 * steps / steps.max()) + 1e-5)
    expected = 1 - np.concatenate([[0], np.cumsum(resistance)]) / resistance.sum()
    np.testing.assert_allclose(walk[:, 0], expected, atol=1e-9)


def test_realtime_links_the_ends_of_columns_to_nodes_of_their_own():
    walk = ConfidenceMapSolver.preset("realtime", beta=0.0)(np.zeros((4, 1)))
    resistance = np.array([1, *[1 / 1.0001] * 3, 1])
    np.testing.assert_allclose(walk[:, 0], 1 - np.cumsum(resistance)[:-1] / resistance.sum(), atol=1e-9)


def test_presets_differ_where_they_should():
    reference, paper, realtime = (ConfidenceMapSolver.preset(name) for name in FORMULATIONS)
    assert (reference.alpha, reference.beta) == (2.0, 90.0)
    assert (paper.formulation, paper.normalise) == ("paper", "frame")
    assert (realtime.formulation, realtime.normalise) == ("realtime", "fixed")
    assert ConfidenceMapSolver.preset("paper", beta=5.0).beta == 5.0


def test_contrast_beyond_floating_point_is_solved_directly_and_told(rng):
    frame = rng.random((40, 36))
    frame[12:20, 10:18] += 3.0
    solver = ConfidenceMapSolver(beta=400.0, formulation="paper")
    maps, info = solver.solve(frame)
    assert info.fallback
    assert info.error_estimate < 1e-9
    mirrored = solver(frame[:, ::-1])
    np.testing.assert_allclose(mirrored[:, ::-1], maps, atol=1e-9)


def test_frame_that_does_not_converge_is_solved_directly_and_told(rng, monkeypatch):
    frames = rng.random((2, 20, 18))
    exact = ConfidenceMapSolver(method="direct")(frames)
    monkeypatch.setattr(compiled, "MOST_STEPS", 0)
    maps, info = ConfidenceMapSolver().solve(frames)
    assert info.fallback.tolist() == [True, True]
    np.testing.assert_array_equal(maps, exact)


def test_missed_tolerance_is_never_silent(rng, monkeypatch):
    lost = compiled.Solution(np.zeros((6, 5)), 3, np.inf, np.nan, fallback=True)
    monkeypatch.setattr(compiled.CompiledSolver, "__call__", lambda *_: lost)
    with pytest.warns(UserWarning, match=r"1 of 1 frames miss the tolerance of 0\.001"):
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
    walk = ConfidenceMapSolver(tolerance=1e-9)(rng.random((25, 18)))
    inner = walk[1:-1, 1:-1]
    around = np.stack(
        [walk[1 + i : 24 + i, 1 + j : 17 + j] for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    )
    assert (inner <= around.max(axis=0) + 1e-9).all()
    assert (inner >= around.min(axis=0) - 1e-9).all()


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
    for solver in (ConfidenceMapSolver(), ConfidenceMapSolver(mode="RF"), ConfidenceMapSolver(sink="min")):
        np.testing.assert_array_equal(solver(frame, domain)[4:24, 3:18], solver(crop))


def test_burned_in_mark_that_is_masked_changes_nothing_elsewhere(rng):
    frame = rng.random((30, 30))
    mark = np.zeros(frame.shape, dtype=bool)
    mark[12:15, 12:15] = True
    marked = np.where(mark, 40.0, frame)
    solver = ConfidenceMapSolver()
    np.testing.assert_array_equal(solver(marked, ~mark), solver(frame, ~mark))


def test_neck_of_one_pixel_is_passed():
    domain = np.zeros((9, 9), dtype=bool)
    domain[:4] = domain[5:] = True
    domain[4, 4] = True
    walk = ConfidenceMapSolver()(np.zeros((9, 9)), domain)
    assert 0 < walk[5, 4] < walk[4, 4] < walk[3, 4] < 1


def test_parts_without_source_or_sink():
    frame = np.random.default_rng(0).random((9, 9))
    domain = np.zeros((9, 9), dtype=bool)
    domain[:, :3] = domain[:, 6:] = True
    left, right = np.zeros_like(domain), np.zeros_like(domain)
    left[0, :3], right[8, 6:] = True, True
    walk = ConfidenceMapSolver()(frame, domain, source=left, sink=right)
    assert (walk[:, :3] == 1).all()
    assert (walk[:, 3:] == 0).all()


def test_masks_can_be_shared_or_differ_by_frame(rng):
    frames = rng.random((3, 12, 11))
    domains = rng.random((3, 12, 11)) < 0.8
    solver = ConfidenceMapSolver()
    shared, own = solver(frames, domains[0]), solver(frames, domains)
    for index in range(3):
        np.testing.assert_array_equal(shared[index], solver(frames[index], domains[0]))
        np.testing.assert_array_equal(own[index], solver(frames[index], domains[index]))
    assert not ConfidenceMapSolver()(frames, np.zeros((12, 11), dtype=bool)).any()


@pytest.mark.parametrize("max_batch", [None, 1, 2])
def test_batch_equals_single_frames_bit_for_bit(rng, max_batch):
    frames = rng.random((2, 3, 45, 41))
    solver = ConfidenceMapSolver(max_batch=max_batch)
    batch = solver(frames)
    for index in np.ndindex(2, 3):
        np.testing.assert_array_equal(batch[index], solver(frames[index]))


def test_memory_does_not_grow_with_the_number_of_shapes(rng, monkeypatch):
    alive, most = weakref.WeakSet(), []

    class Counted(compiled._Buffers):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            alive.add(self)
            most.append(len(alive))

    monkeypatch.setattr(compiled, "_Buffers", Counted)
    domains = np.zeros((9, 30, 20), dtype=bool)
    for index, domain in enumerate(domains):
        domain[index:] = True
    ConfidenceMapSolver(max_batch=1)(rng.random(domains.shape), domains)
    assert len(most) == 9
    assert max(most) == 1


def test_threads_do_not_disturb_each_other(rng):
    frames = rng.random((6, 40, 33))
    solver = ConfidenceMapSolver()
    expected = [solver(frame) for frame in frames]
    with ThreadPoolExecutor(6) as pool:
        for maps, alone in zip(pool.map(solver, frames), expected, strict=True):
            np.testing.assert_array_equal(maps, alone)


def test_works_in_a_forked_process(rng):
    frames = rng.random((4, 20, 20))
    expected = ConfidenceMapSolver()(frames)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        maps = pool.apply_async(ConfidenceMapSolver(), (frames,)).get(timeout=60)
    np.testing.assert_array_equal(maps, expected)


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


def test_integers_on_a_fixed_scale_are_shares_of_their_range(rng):
    frame = rng.integers(256, size=(15, 14), dtype=np.uint8)
    solver = ConfidenceMapSolver.preset("realtime")
    np.testing.assert_allclose(solver(frame), solver(frame / 255), atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_frame_is_named(rng, bad):
    frames = rng.random((2, 3, 8, 6))
    frames[1, 2, 3, 3] = bad
    with pytest.raises(ValueError, match=r"frame \(1, 2\)"):
        ConfidenceMapSolver()(frames)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": -1.0}, "beta must be a finite number"),
        ({"tolerance": 0.0}, "tolerance must lie between 0 and 1"),
        ({"max_batch": 0}, "max_batch must be at least 1"),
        ({"formulation": "mine"}, "formulation must be one of reference, paper, realtime, found 'mine'"),
    ],
)
def test_refuses_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConfidenceMapSolver(**arguments)


def test_refuses_bad_input(rng):
    with pytest.raises(ValueError, match=r"domain of shape \(3, 3\)"):
        ConfidenceMapSolver()(rng.random((4, 4)), np.ones((3, 3), dtype=bool))
    with pytest.raises(ValueError, match="depth, lateral"):
        ConfidenceMapSolver()(np.ones(4))
    with pytest.raises(ValueError, match="at least one pixel"):
        ConfidenceMapSolver()(np.ones((3, 0)))
