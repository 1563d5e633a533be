"""The CUDA engine on a GPU."""

import gc
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import numpy as np
import pytest
import torch

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.confidence.cuda import bytes_per_frame
from tests.confidence.masks import masks_of

SHAPES = [(1, 1), (1, 9), (8, 1), (3, 5), (9, 9), (16, 17), (40, 33), (70, 70), (250, 210)]


def has_gpu() -> bool:
    if importlib.util.find_spec("cupy") is None:
        return False
    import cupy

    return bool(cupy.cuda.is_available())


def gpu_frames(rng, *shape):
    return torch.from_numpy(rng.random(shape, dtype=np.float32)).cuda()


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


@pytest.mark.parametrize("method", ["cg", "direct"])
def test_gpu_batches_of_1_3_and_64_are_equal(rng, method):
    frames = gpu_frames(rng, 64, 72, 65)
    solver = ConfidenceMapSolver(method=method)
    maps, info = solver.solve(frames, certify=True)
    for count in (1, 3):
        some, some_info = solver.solve(frames[:count], certify=True)
        assert torch.equal(some, maps[:count])
        np.testing.assert_array_equal(some_info.error_estimate, info.error_estimate[:count])
        np.testing.assert_array_equal(some_info.error_bound, info.error_bound[:count])


def test_gpu_threads_have_their_own_streams(rng):
    solver = ConfidenceMapSolver()
    stacks = [gpu_frames(rng, 8, 100, 90), gpu_frames(rng, 5, 70, 66)]
    expected = [solver(frames) for frames in stacks]
    torch.cuda.synchronize()
    barrier = Barrier(len(stacks))

    def work(frames):
        stream = torch.cuda.Stream()
        barrier.wait(timeout=30)
        with torch.cuda.stream(stream):
            maps = [solver(frames + 0.0) for _ in range(5)]
        stream.synchronize()
        return maps

    with ThreadPoolExecutor(len(stacks)) as threads:
        for maps, same in zip(threads.map(work, stacks), expected, strict=True):
            assert all(torch.equal(found, same) for found in maps)


def test_gpu_gradient_on_a_side_stream(rng):
    solver = ConfidenceMapSolver(beta=20.0, normalise="fixed", tolerance=1e-9)
    frames, upstream = gpu_frames(rng, 3, 40, 33).double(), gpu_frames(rng, 3, 40, 33).double()
    expected = frames.clone().requires_grad_()
    solver(expected).backward(upstream)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        late = (frames + 0.0).requires_grad_()
        solver(late).backward(upstream)
        doubled = 2 * late.grad
    stream.synchronize()
    assert torch.equal(doubled / 2, expected.grad)


def test_gpu_takes_any_layout_and_type(rng):
    import cupy

    frames = torch.randint(0, 200, (4, 50, 40), dtype=torch.uint8, device="cuda")
    solver = ConfidenceMapSolver()
    expected = solver(frames.float())
    transposed = frames.transpose(1, 2).contiguous().transpose(1, 2)
    every_other = frames.repeat_interleave(2, dim=2)[..., ::2]
    for same in (frames, transposed, every_other, transposed.float(), frames[None, :, None]):
        assert torch.equal(solver(same).reshape(frames.shape), expected)
    array = cupy.asfortranarray(cupy.from_dlpack(frames))
    np.testing.assert_array_equal(solver(array).get(), expected.cpu().numpy())
    masks = {"domain": torch.ones(40, 50, dtype=torch.bool, device="cuda").T}
    assert torch.equal(solver(frames, **masks), expected)


def test_gpu_solves_frames_that_require_a_gradient(rng):
    frames = gpu_frames(rng, 2, 30, 25)
    expected = ConfidenceMapSolver()(frames)
    frames.requires_grad_()
    maps, _ = ConfidenceMapSolver().solve(frames)
    assert not maps.requires_grad
    assert torch.equal(maps, expected)
    with torch.no_grad():
        assert torch.equal(ConfidenceMapSolver()(frames), expected)


def test_gpu_takes_tensors_of_monai(rng):
    data = pytest.importorskip("monai.data")
    frames = gpu_frames(rng, 2, 30, 25)
    maps = ConfidenceMapSolver()(data.MetaTensor(frames))
    assert torch.equal(torch.as_tensor(maps), ConfidenceMapSolver()(frames))


def test_gpu_takes_empty_input():
    maps, info = ConfidenceMapSolver().solve(torch.ones(0, 5, 4, device="cuda"))
    assert maps.is_cuda
    assert maps.shape == (0, 5, 4)
    assert info.iterations.shape == (0,)
    nothing = torch.zeros(5, 4, dtype=torch.bool, device="cuda")
    assert not ConfidenceMapSolver()(torch.ones(2, 5, 4, device="cuda"), nothing).any()


def test_gpu_takes_cupy_arrays_on_any_stream(rng):
    import cupy

    code = """extern "C" __global__ void wait(const long long cycles) {
        const long long start = clock64();
        while (clock64() - start < cycles) {}
    }"""
    wait = cupy.RawKernel(code, "wait")
    frames = rng.random((4, 50, 40))
    expected = ConfidenceMapSolver()(frames)
    on_device = cupy.asarray(frames)
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        wait((1,), (1,), (np.int64(100_000_000),))  # a solver on another stream would see what is not yet there
        late = on_device + 0.0
        doubled = 2 * ConfidenceMapSolver()(late)
        result = doubled.get()
    stream.synchronize()
    np.testing.assert_allclose(result / 2, expected, rtol=0, atol=1e-5)


def test_gpu_takes_fewer_frames_if_the_memory_is_exhausted(rng):
    frames = gpu_frames(rng, 32, 256, 250)
    expected = ConfidenceMapSolver()(frames)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + 8 * bytes_per_frame((256, 250), np.float32)
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    try:
        maps = ConfidenceMapSolver()(frames)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.equal(maps, expected)
    assert torch.cuda.max_memory_reserved() <= allowed


def test_gpu_computes_envelopes_of_tensors(rng):
    depth = np.arange(128)[:, None]
    lines = np.cos(1.3 * depth) * rng.random((5, 128, 40))
    solver = ConfidenceMapSolver(mode="RF")
    maps = solver(torch.from_numpy(lines).cuda())
    np.testing.assert_allclose(maps.cpu().numpy(), solver(lines), rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["B", "RF"])
def test_gpu_keeps_no_memory_of_torch(rng, mode):
    frames = gpu_frames(rng, 6, 110, 95)
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    ConfidenceMapSolver(mode=mode)(frames)
    gc.collect()
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize("mode", ["B", "RF"])
def test_gpu_uses_no_more_memory_of_cupy_after_each_call(rng, mode):
    import cupy

    pool = cupy.get_default_memory_pool()
    frames = rng.random((6, 110, 95))
    solver = ConfidenceMapSolver(mode=mode, backend="cuda")
    solver(frames)  # the tables of a shape are kept
    gc.collect()
    before = pool.used_bytes()
    solver(frames)
    gc.collect()
    assert pool.used_bytes() == before


def test_gpu_takes_parameters_of_any_precision(rng):
    frames = gpu_frames(rng, 2, 40, 33)
    solver = ConfidenceMapSolver()
    same = replace(solver, **{name: np.float32(getattr(solver, name)) for name in ("alpha", "beta", "tolerance")})
    np.testing.assert_allclose(same(frames).cpu(), solver(frames).cpu(), rtol=0, atol=1e-5)


def test_gpu_refuses_to_be_captured_as_a_graph(rng):
    frames = gpu_frames(rng, 2, 40, 33)
    expected = ConfidenceMapSolver()(frames)
    torch.cuda.synchronize()
    refused = pytest.raises((ValueError, RuntimeError), match="captur")
    with torch.cuda.graph(torch.cuda.CUDAGraph()), refused as caught:
        ConfidenceMapSolver()(frames)
    assert type(caught.value) in (ValueError, RuntimeError)  # not an error of CUDA, which ends the capture
    assert torch.equal(ConfidenceMapSolver()(frames), expected)
