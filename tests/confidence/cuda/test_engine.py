"""The CUDA engine with its kernels run on the host: it equals the CPU's."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.confidence.cuda.gradients import fill_gradients
from cm_lightning.confidence.problem import Problem
from tests.confidence.cuda.host_device import solve_on_host
from tests.confidence.masks import masks_of

SHAPES = [(1, 1), (1, 9), (8, 1), (3, 5), (9, 9), (16, 17), (40, 33), (70, 70)]


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_cpu(device, rng, shape):
    frames = rng.random((2, *shape))
    expected = ConfidenceMapSolver(method="direct")(frames)
    maps, info = solve_on_host(device, ConfidenceMapSolver(), frames, certify=True)
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-6)
    assert not info.fallback.any()
    assert (np.abs(maps - expected).max(axis=(1, 2)) <= info.error_bound + 1e-12).all()
    assert (info.error_bound < 1e-6).all()
    directly, info = solve_on_host(device, ConfidenceMapSolver(method="direct"), frames, certify=True)
    np.testing.assert_allclose(directly, expected, rtol=0, atol=1e-12)
    assert (info.error_bound < 1e-8).all()
    assert (info.iterations == 0).all()


@pytest.mark.parametrize("kind", ["band", "fan", "parts", "one side without source"])
@pytest.mark.parametrize("shape", [(17, 12), (45, 50)])
def test_equals_the_cpu_on_domains(device, rng, shape, kind):
    frame = rng.random(shape)
    masks = masks_of(kind, shape, rng)
    expected = ConfidenceMapSolver(method="direct")(frame, **masks)
    maps, info = solve_on_host(device, ConfidenceMapSolver(), frame, **masks)
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-6)
    assert not info.fallback.any()
    maps, _ = solve_on_host(device, ConfidenceMapSolver(method="direct"), frame, **masks)
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "solver",
    [
        ConfidenceMapSolver(0.5, 400.0, 0.0),
        ConfidenceMapSolver(2.0, 90.0, 0.1, tolerance=1e-6),
        ConfidenceMapSolver(normalise="fixed", sink="mid"),
        ConfidenceMapSolver(mode="RF"),
        ConfidenceMapSolver.preset("realtime"),
    ],
    ids=["beta 400, gamma 0", "tolerance 1e-6", "fixed", "RF", "realtime"],
)
@pytest.mark.parametrize("levels", [256, 3])
def test_equals_the_cpu_with_other_parameters(device, rng, solver, levels):
    frame = (rng.integers(levels, size=(37, 28)) * (255 // (levels - 1))).astype(np.uint8)
    expected = replace(solver, method="direct")(frame.astype(float) / 255.0)
    maps, info = solve_on_host(device, solver, frame)
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-5)
    assert not info.fallback.any()


def test_paper_formulation_falls_back(device, rng):
    frames = rng.integers(256, size=(2, 30, 25)).astype(float)
    solver = ConfidenceMapSolver.preset("paper", beta=400.0)
    maps, info = solve_on_host(device, solver, frames)
    expected, expected_info = solver.solve(frames)
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-10)
    assert info.fallback.all()
    assert expected_info.fallback.all()
    assert (info.error_estimate < 1e-8).all()


def test_too_many_steps_fall_back(device, rng, monkeypatch):
    monkeypatch.setattr("cm_lightning.confidence.cuda.iteration.MAX_STEPS", 0)
    frames = rng.random((3, 20, 20))
    maps, info = solve_on_host(device, ConfidenceMapSolver(), frames, certify=True)
    np.testing.assert_allclose(maps, ConfidenceMapSolver(method="direct")(frames), rtol=0, atol=1e-12)
    assert info.fallback.all()


def test_result_does_not_depend_on_the_batch(device, rng):
    frames = np.concatenate([rng.random((3, 35, 30)), np.ones((1, 35, 30)), rng.random((1, 35, 30)) > 0.5])
    frames = frames.astype(np.float32)
    domain = np.ones(frames.shape, dtype=bool)
    domain[1, :4] = domain[3, :, 20:] = False  # three groups of frames, one with gaps
    for solver in (ConfidenceMapSolver(mode="RF"), ConfidenceMapSolver(method="direct")):
        if solver.method == "direct":
            domain[1] = domain[3]
        batch, info = solve_on_host(device, solver, frames, domain, certify=True)
        for index in range(len(frames)):
            single, single_info = solve_on_host(device, solver, frames[index], domain[index], certify=True)
            np.testing.assert_array_equal(batch[index], single)
            assert info.error_bound[index] == single_info.error_bound
            assert info.iterations[index] == single_info.iterations
        chunked, _ = solve_on_host(device, replace(solver, max_batch=2), frames, domain)
        np.testing.assert_array_equal(batch, chunked)


@pytest.mark.parametrize("formulation", ["reference", "paper", "realtime"])
def test_rounding_as_on_a_gpu(device_like_cupy, rng, formulation):
    device = device_like_cupy
    frames = rng.random((2, 45, 50))
    # With these steps, weights of the paper's formulation are far below the smallest normal float32.
    solver = ConfidenceMapSolver(formulation=formulation, beta=200.0)
    exact = replace(solver, method="direct")(frames)
    for method in ("cg", "direct"):
        maps, info = solve_on_host(device, replace(solver, method=method), frames, certify=True)
        np.testing.assert_allclose(maps, exact, rtol=0, atol=1e-8)
        assert info.fallback.all() == (formulation == "paper" and method == "cg")
        single, _ = solve_on_host(device, replace(solver, method=method), frames[1])
        np.testing.assert_array_equal(single, maps[1])
        if formulation != "paper":
            assert (np.abs(maps - exact).max(axis=(1, 2)) <= info.error_bound + 1e-12).all()
            assert (info.error_bound < 1e-7).all()


def test_similar_boxes_are_solved_together(device, rng):
    frames = rng.random((6, 40, 36))
    domain = np.zeros(frames.shape, dtype=bool)
    for index, mask in enumerate(domain):
        mask[index % 3 : 38 - index % 2, 1 + index % 2 :] = True
    domain[4] = domain[3]
    domain[5, :, :20] = False
    solver = ConfidenceMapSolver()
    device.launches.clear()
    maps, _ = solve_on_host(device, solver, frames, domain)
    assert device.launches.count("eliminate_cells") == 2
    np.testing.assert_allclose(maps, replace(solver, method="direct")(frames, domain), rtol=0, atol=1e-6)


def test_threads_wait_for_each_other(device, rng):
    frames = rng.random((1, 70, 66))
    for solver in (ConfidenceMapSolver(), ConfidenceMapSolver(method="direct")):
        maps, _ = solve_on_host(device, solver, frames, certify=True)
        device.reversed = True
        try:
            reversed_maps, _ = solve_on_host(device, solver, frames, certify=True)
        finally:
            device.reversed = False
        np.testing.assert_array_equal(maps, reversed_maps)


def test_nothing_is_read_before_it_is_written(device, rng, monkeypatch):
    class Poisoned:
        """NumPy whose fresh memory consists of bytes that are NaN as float32 and float64."""

        def __getattr__(self, name):
            return getattr(np, name)

        @staticmethod
        def empty(shape, dtype=np.float64):
            return np.full(np.prod(shape) * np.dtype(dtype).itemsize, 0xFF, np.uint8).view(dtype).reshape(shape)

        def empty_like(self, array):
            return self.empty(array.shape, array.dtype)

    frames = rng.random((2, 66, 71))
    for solver in (ConfidenceMapSolver(), ConfidenceMapSolver(method="direct")):
        maps, info = solve_on_host(device, solver, frames, certify=True)
        with monkeypatch.context() as patch:
            patch.setattr(device, "xp", Poisoned(), raising=False)
            patch.setattr("cm_lightning.confidence.cuda.arena.ALIGNMENT", 8192)  # with gaps between arrays
            poisoned_maps, poisoned_info = solve_on_host(device, solver, frames, certify=True)
        np.testing.assert_array_equal(maps, poisoned_maps)
        np.testing.assert_array_equal(info.error_bound, poisoned_info.error_bound)


def test_certified_bound_holds(device, rng):
    frames = rng.random((2, 48, 40))
    exact, _ = ConfidenceMapSolver(method="direct").solve(frames, certify=True)
    solver = ConfidenceMapSolver(tolerance=1e-2)
    maps, info = solve_on_host(device, solver, frames.astype(np.float32), certify=True)
    exact = ConfidenceMapSolver(method="direct")(frames.astype(np.float32).astype(float))
    assert (np.abs(maps - exact).max(axis=(1, 2)) <= info.error_bound).all()
    assert (info.error_bound < 1e-5).all()


@pytest.mark.parametrize("method", ["cg", "direct"])
@pytest.mark.parametrize("formulation", ["reference", "paper"])
def test_gradient_equals_the_cpu(device, rng, formulation, method):
    frames = torch.from_numpy(rng.random((3, 22, 19))).requires_grad_()
    domain = np.ones(frames.shape, dtype=bool)
    domain[1, :3] = domain[2, :, 9] = False
    upstream = torch.from_numpy(rng.standard_normal(frames.shape))
    # Steps of near 1 make weights of exp(-40) in the paper's formula: beyond conjugate gradients.
    solver = ConfidenceMapSolver(beta=40.0, formulation=formulation, normalise="fixed", method=method, tolerance=1e-9)
    maps = solver(frames, domain)
    maps.backward(upstream)
    problem = Problem(solver, frames.detach().numpy(), domain, None, None)
    result = np.zeros(problem.shape)
    fill_gradients(device, problem, maps.detach().numpy(), upstream.numpy(), result)
    np.testing.assert_allclose(result, frames.grad.numpy(), rtol=0, atol=1e-6 * np.abs(frames.grad.numpy()).max())


def test_empty_inputs(device):
    maps, info = solve_on_host(device, ConfidenceMapSolver(), np.ones((2, 5, 4)), np.zeros((5, 4), dtype=bool))
    assert not maps.any()
    assert (info.error_estimate == 0).all()
    maps, info = solve_on_host(device, ConfidenceMapSolver(), np.ones((0, 5, 4)))
    assert maps.shape == (0, 5, 4)
