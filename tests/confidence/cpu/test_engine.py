"""Tests of the CPU engine with several threads, in forked processes, and of its memory."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.confidence.cpu import engine, memory
from cm_lightning.confidence.cpu.memory import SolverPool


@pytest.mark.parametrize("max_batch", [None, 1, 2])
def test_batch_equals_single_frames_bit_for_bit(rng, max_batch):
    frames = rng.random((2, 3, 45, 41))
    solver = ConfidenceMapSolver(max_batch=max_batch)
    batch = solver(frames)
    for index in np.ndindex(2, 3):
        np.testing.assert_array_equal(batch[index], solver(frames[index]))


@pytest.mark.parametrize("shape", [(45, 41), (140, 150)])
def test_maps_do_not_depend_on_the_number_of_threads(rng, monkeypatch, shape):
    frames = rng.random((3, *shape))
    results = []
    for cores in (1, 2, 4):
        monkeypatch.setattr(engine, "available_cores", lambda cores=cores: cores)
        results.append(ConfidenceMapSolver(max_batch=None)(frames))
    for maps in results[1:]:
        np.testing.assert_array_equal(maps, results[0])


def test_frames_with_domains_of_different_shapes_are_solved_together(rng):
    frames = rng.random((40, 36, 33))
    domains = np.zeros(frames.shape, bool)
    for index, domain in enumerate(domains):
        domain[index % 3 :, : 30 + index % 2] = True
    domains[7] = False
    maps = ConfidenceMapSolver()(frames, domains)
    for index in (0, 1, 7, 20, 39):
        np.testing.assert_array_equal(maps[index], ConfidenceMapSolver()(frames[index], domains[index]))
    assert not maps[7].any()


def test_only_solvers_for_the_last_shape_are_kept(monkeypatch):
    pool = SolverPool()
    with pool.borrow((200, 90), 1) as first, pool.borrow((200, 90), 1) as second:
        assert first is not second
    with pool.borrow((200, 90), 1) as solver:
        assert solver in (first, second)
    with pool.borrow((210, 90), 1) as other:
        assert other.shape == (210, 90)
    assert [solver.shape for solver in pool._idle] == [(210, 90)]
    monkeypatch.setattr(memory, "MAX_KEPT_BYTES", -1)
    with pool.borrow((210, 90), 1):
        pass
    assert pool._idle == []


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
