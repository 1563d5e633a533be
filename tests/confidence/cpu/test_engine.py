"""Tests of the CPU engine with several threads, in forked processes, and of its memory."""

import multiprocessing
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.confidence.cpu import solver as cpu_solver


@pytest.mark.parametrize("max_batch", [None, 1, 2])
def test_batch_equals_single_frames_bit_for_bit(rng, max_batch):
    frames = rng.random((2, 3, 45, 41))
    solver = ConfidenceMapSolver(max_batch=max_batch)
    batch = solver(frames)
    for index in np.ndindex(2, 3):
        np.testing.assert_array_equal(batch[index], solver(frames[index]))


def test_memory_does_not_grow_with_the_number_of_shapes(rng, monkeypatch):
    existing, counts = weakref.WeakSet(), []

    class CountedBuffers(cpu_solver._Buffers):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            existing.add(self)
            counts.append(len(existing))

    monkeypatch.setattr(cpu_solver, "_Buffers", CountedBuffers)
    domains = np.zeros((9, 30, 20), dtype=bool)
    for index, domain in enumerate(domains):
        domain[index:] = True
    ConfidenceMapSolver(max_batch=1)(rng.random(domains.shape), domains)
    assert len(counts) == 9
    assert max(counts) == 1


def test_calls_from_several_threads_do_not_affect_each_other(rng):
    frames = rng.random((6, 40, 33))
    solver = ConfidenceMapSolver()
    expected = [solver(frame) for frame in frames]
    with ThreadPoolExecutor(6) as pool:
        for maps, expected_maps in zip(pool.map(solver, frames), expected, strict=True):
            np.testing.assert_array_equal(maps, expected_maps)


def test_maps_in_a_forked_process(rng):
    frames = rng.random((4, 20, 20))
    expected = ConfidenceMapSolver()(frames)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        maps = pool.apply_async(ConfidenceMapSolver(), (frames,)).get(timeout=60)
    np.testing.assert_array_equal(maps, expected)
