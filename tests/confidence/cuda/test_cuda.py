"""The GPU's solver: its kernels run on the host, compiled for GPUs, and run on one where there is one."""

import importlib.util
import shutil
import subprocess
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from cm_lightning.confidence import ConfidenceMapSolver, column_sink, column_source
from cm_lightning.confidence.cuda import bytes_per_frame
from cm_lightning.confidence.cuda.device import OPTIONS, SOURCE
from cm_lightning.confidence.cuda.gradients import fill_gradients
from cm_lightning.confidence.cuda.maps import fill_maps
from cm_lightning.confidence.cuda.memory import in_chunks
from cm_lightning.confidence.problem import Problem
from tests.confidence.cuda.host_device import HostDevice

SHAPES = [(1, 1), (1, 9), (8, 1), (3, 5), (9, 9), (16, 17), (40, 33), (70, 70)]


def has_gpu() -> bool:
    if importlib.util.find_spec("cupy") is None:
        return False
    import cupy

    return bool(cupy.cuda.is_available())


needs_gpu = pytest.mark.skipif(not has_gpu(), reason="needs CuPy and a GPU")


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to run the kernels on the host")
    return HostDevice(tmp_path_factory.mktemp("kernels"))


def solve_on_host(device, solver, frames, domain=None, source=None, sink=None, certify=False):
    problem = Problem(replace(solver, backend="cpu"), frames, domain, source, sink)
    maps = np.zeros(problem.shape, problem.dtype)
    info = fill_maps(device, problem, certify, maps)
    return maps.reshape(frames.shape), info


def masks_of(kind, shape, rng):
    """Masks as keyword arguments."""
    depth, lateral = shape
    rows, columns = np.indices(shape)
    match kind:
        case "band":
            return {"domain": (columns >= lateral // 5) & (columns < lateral - lateral // 4) & (rows > 2)}
        case "fan":
            radius = np.hypot(rows + depth // 3, columns - lateral / 2)
            angle = np.abs(np.arctan2(columns - lateral / 2, rows + depth // 3))
            domain = (angle < 0.5) & (radius > depth // 3) & (radius < 1.2 * depth)
            return {"domain": domain, "source": radius < depth // 3 + 2, "sink": radius > 1.2 * depth - 2}
        case "parts":
            return {"domain": rng.random(shape) < 0.4}
        case "one side without source":
            domain = columns != lateral // 2
            source = column_source(domain) & (columns < lateral // 2)
            return {"domain": domain, "source": source, "sink": column_sink(domain) & (columns % 2 == 0)}
    raise AssertionError(kind)


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
    monkeypatch.setattr("cm_lightning.confidence.cuda.iteration.MOST_STEPS", 0)
    frames = rng.random((3, 20, 20))
    maps, info = solve_on_host(device, ConfidenceMapSolver(), frames, certify=True)
    np.testing.assert_allclose(maps, ConfidenceMapSolver(method="direct")(frames), rtol=0, atol=1e-12)
    assert info.fallback.all()


def test_result_does_not_depend_on_the_batch(device, rng):
    frames = np.concatenate([rng.random((3, 35, 30)), np.ones((1, 35, 30)), rng.random((1, 35, 30)) > 0.5])
    frames = frames.astype(np.float32)
    domain = np.ones(frames.shape, dtype=bool)
    domain[1, :4] = domain[3, :, 25:] = False  # three groups of frames, one with gaps
    for solver in (ConfidenceMapSolver(mode="RF"), ConfidenceMapSolver(method="direct")):
        batch, info = solve_on_host(device, solver, frames, domain, certify=True)
        for index in range(len(frames)):
            single, single_info = solve_on_host(device, solver, frames[index], domain[index], certify=True)
            np.testing.assert_array_equal(batch[index], single)
            assert info.error_bound[index] == single_info.error_bound
            assert info.iterations[index] == single_info.iterations
        chunked, _ = solve_on_host(device, replace(solver, max_batch=2), frames, domain)
        np.testing.assert_array_equal(batch, chunked)


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
        """NumPy whose fresh memory holds NaN, with more NaN before and after it."""

        def __getattr__(self, name):
            return getattr(np, name)

        @staticmethod
        def empty(shape, dtype=np.float64):
            size = int(np.prod(shape))
            return np.full(size + 2000, np.nan, dtype)[1000 : 1000 + size].reshape(shape)

        def empty_like(self, array):
            return self.empty(array.shape, array.dtype)

    frames = rng.random((2, 66, 71))
    for solver in (ConfidenceMapSolver(), ConfidenceMapSolver(method="direct")):
        maps, info = solve_on_host(device, solver, frames, certify=True)
        with monkeypatch.context() as patch:
            patch.setattr(device, "xp", Poisoned(), raising=False)
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


def test_less_memory_means_smaller_chunks(device):
    tried = []

    def work(frames):
        tried.append(list(frames))
        if len(frames) > 2:
            raise MemoryError

    in_chunks(device, range(7), 1, None, work)
    assert tried == [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2], [0], [1], [2], [3], [4], [5], [6]]
    with pytest.raises(MemoryError):
        in_chunks(device, range(2), 1, None, lambda frames: work(range(3)))
    tried.clear()
    device.free = 500
    try:
        in_chunks(device, range(7), 100, None, lambda frames: tried.append(list(frames)))
    finally:
        device.free = 2**40
    assert tried == [[0, 1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(("method", "precision"), [("cg", np.float32), ("direct", np.float64)])
def test_memory_is_counted(device, rng, method, precision):
    frames = rng.random((4, 100, 90)).astype(np.float32)
    problem = Problem(ConfidenceMapSolver(method=method), frames, None, None, None)
    maps = np.zeros(problem.shape, np.float32)
    fill_maps(device, problem, True, maps)  # what is kept from one call to the next is there now
    tracemalloc.start()
    try:
        fill_maps(device, problem, True, maps)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / len(frames) == pytest.approx(bytes_per_frame((100, 90), precision, certify=True), rel=0.02)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=["float32", "float64"])
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_kernels_compile(tmp_path, architecture, options):
    output = str(tmp_path / "kernels.cubin")
    command = ["nvcc", "-cubin", f"-arch={architecture}", "-std=c++14", "-Werror", "all-warnings", *options]
    subprocess.run([*command, "-o", output, str(SOURCE)], check=True)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=["float32", "float64"])
def test_kernels_compile_without_headers(options):
    pytest.importorskip("cupy")
    from cupy_backends.cuda.libs import nvrtc

    try:
        nvrtc.getVersion()
    except Exception as error:  # whatever a missing library raises in this version
        pytest.skip(f"needs NVRTC: {error}")
    program = nvrtc.createProgram(SOURCE.read_text(encoding="utf-8"), "kernels.cu", (), ())
    try:
        nvrtc.compileProgram(program, ("-std=c++14", "--gpu-architecture=compute_80", *options))
    finally:
        nvrtc.destroyProgram(program)


@needs_gpu
@pytest.mark.parametrize("shape", [*SHAPES, (250, 210)])
def test_gpu_equals_the_cpu(rng, shape):
    frames = rng.random((3, *shape))
    expected = ConfidenceMapSolver(method="direct")(frames)
    for solver in (ConfidenceMapSolver(backend="cuda"), ConfidenceMapSolver(backend="cuda", method="direct")):
        maps, info = solver.solve(frames, certify=True)
        assert isinstance(maps, np.ndarray)
        np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-5)
        assert (np.abs(maps - expected).max(axis=(1, 2)) <= info.error_bound + 1e-12).all()
        assert not info.fallback.any()


@needs_gpu
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


@needs_gpu
def test_gpu_result_does_not_depend_on_the_batch(rng):
    import cupy

    frames = cupy.asarray(rng.random((5, 100, 90)))
    for mode in ("B", "RF"):
        solver = ConfidenceMapSolver(mode=mode)
        batch = solver(frames).get()
        np.testing.assert_array_equal(batch, replace(solver, max_batch=1)(frames).get())
        for index in range(len(frames)):
            np.testing.assert_array_equal(batch[index], solver(frames[index]).get())


@needs_gpu
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


@needs_gpu
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


@needs_gpu
def test_gpu_gradient_equals_the_cpu():
    torch.manual_seed(0)
    solver = ConfidenceMapSolver(beta=20.0, normalise="fixed", tolerance=1e-9)
    frames = torch.rand(3, 1, 40, 33, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(frames.shape, dtype=torch.float64)
    solver(frames).backward(upstream)
    on_gpu = frames.detach().cuda().requires_grad_()
    solver(on_gpu).backward(upstream.cuda())
    torch.testing.assert_close(on_gpu.grad.cpu(), frames.grad, rtol=1e-5, atol=1e-6)


@needs_gpu
def test_gpu_refuses_non_finite_frames(rng):
    frames = torch.from_numpy(rng.random((2, 3, 8, 6))).cuda()
    frames[1, 2, 3, 3] = torch.nan
    with pytest.raises(ValueError, match=r"frame \(1, 2\)"):
        ConfidenceMapSolver()(frames)
