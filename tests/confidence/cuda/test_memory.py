"""How many frames fit, and what happens if they do not."""

import tracemalloc

import numpy as np
import pytest

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.confidence.cuda import bytes_per_frame
from cm_lightning.confidence.cuda.maps import fill_maps
from cm_lightning.confidence.cuda.memory import in_chunks
from cm_lightning.confidence.problem import Problem


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


def test_the_comparison_with_mirrored_systems_needs_no_further_arena(device, rng):
    frames = rng.integers(256, size=(4, 100, 90)).astype(np.float32)
    problem = Problem(ConfidenceMapSolver.preset("paper", beta=400.0, method="direct"), frames, None, None, None)
    maps = np.zeros(problem.shape, np.float32)
    fill_maps(device, problem, False, maps)  # what is kept from one call to the next is there now
    tracemalloc.start()
    try:
        info = fill_maps(device, problem, False, maps)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (info.error_estimate < 1e-8).all()
    assert peak / len(frames) < 1.15 * bytes_per_frame((100, 90), np.float64)
