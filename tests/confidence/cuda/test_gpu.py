"""The CUDA engine on a GPU."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch

from cm_lightning.confidence import ConfidenceMapSolver
from tests.confidence.masks import masks_of

SHAPES = [(1, 1), (1, 9), (8, 1), (3, 5), (9, 9), (16, 17), (40, 33), (70, 70), (250, 210)]


def has_gpu() -> bool:
    if importlib.util.find_spec("cupy") is None:
        return False
    import cupy

    return bool(cupy.cuda.is_available())


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not has_gpu(), reason="needs CuPy and a GPU")]


@pytest.mark.parametrize("shape", SHAPES)
def test_gpu_equals_the_cpu(rng, shape):
    frames = rng.random((3, *shape))
    expected = ConfidenceMapSolver(method="direct")(frames)
    for solver in (ConfidenceMapSolver(backend="cuda"), ConfidenceMapSolver(backend="cuda", method="direct")):
        maps, info = solver.solve(frames, certify=True)
        assert isinstance(maps, np.ndarray)
        np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-5)
        assert (np.abs(maps - expected).max(axis=(1, 2)) <= info.error_bound + 1e-12).all()
        assert not info.fallback.any()


@pytest.mark.parametrize(
    "solver",
    [
        ConfidenceMapSolver(0.5, 400.0, 0.0),
        ConfidenceMapSolver(normalise="fixed", sink="min"),
        ConfidenceMapSolver(mode="RF"),
        ConfidenceMapSolver.preset("realtime"),
        ConfidenceMapSolver.preset("paper"),
    ],
    ids=["beta 400, gamma 0", "fixed", "RF", "realtime", "paper"],
)
def test_gpu_equals_the_cpu_with_other_parameters(rng, solver):
    import cupy

    frames = rng.integers(256, size=(2, 60, 45)).astype(np.uint8)
    masks = masks_of("band", frames.shape[1:], rng)
    maps = solver(cupy.asarray(frames), **masks)
    assert isinstance(maps, cupy.ndarray)
    np.testing.assert_allclose(maps.get(), solver(frames, **masks), rtol=0, atol=1e-5)


def test_gpu_result_does_not_depend_on_the_batch(rng):
    import cupy

    frames = cupy.asarray(rng.random((5, 100, 90)))
    for mode in ("B", "RF"):
        solver = ConfidenceMapSolver(mode=mode)
        batch = solver(frames).get()
        np.testing.assert_array_equal(batch, replace(solver, max_batch=1)(frames).get())
        for index in range(len(frames)):
            np.testing.assert_array_equal(batch[index], solver(frames[index]).get())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8])
def test_gpu_takes_tensors_on_any_stream(dtype):
    frames = torch.randint(0, 200, (4, 1, 50, 40), device="cuda")
    expected = ConfidenceMapSolver()(frames.double().cpu().numpy())
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # a solver on another stream would see what is not yet there
        late = frames.to(dtype)
        maps = ConfidenceMapSolver()(late)
        doubled = 2 * maps
    stream.synchronize()
    assert maps.is_cuda
    assert maps.shape == frames.shape
    assert maps.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    np.testing.assert_allclose(doubled.cpu().numpy() / 2, expected, rtol=0, atol=1e-5)


def test_gpu_takes_memory_from_torch_for_tensors(rng):
    import cupy

    frames = torch.from_numpy(rng.random((2, 100, 90))).cuda()
    ConfidenceMapSolver()(frames)  # the tables of a shape are kept in CuPy's memory
    pool = cupy.get_default_memory_pool()
    before, torch_before = pool.total_bytes(), torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    ConfidenceMapSolver()(frames)
    assert pool.total_bytes() == before
    assert torch.cuda.max_memory_allocated() > torch_before + 1e6


def test_gpu_gradient_equals_the_cpu():
    torch.manual_seed(0)
    solver = ConfidenceMapSolver(beta=20.0, normalise="fixed", tolerance=1e-9)
    frames = torch.rand(3, 1, 40, 33, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(frames.shape, dtype=torch.float64)
    solver(frames).backward(upstream)
    on_gpu = frames.detach().cuda().requires_grad_()
    solver(on_gpu).backward(upstream.cuda())
    torch.testing.assert_close(on_gpu.grad.cpu(), frames.grad, rtol=1e-5, atol=1e-6)


def test_gpu_refuses_non_finite_frames(rng):
    frames = torch.from_numpy(rng.random((2, 3, 8, 6))).cuda()
    frames[1, 2, 3, 3] = torch.nan
    with pytest.raises(ValueError, match=r"frame \(1, 2\)"):
        ConfidenceMapSolver()(frames)
