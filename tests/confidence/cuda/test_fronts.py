"""It does not matter which kernels process a front: small and large fronts, and groups of fronts."""

import numpy as np
import pytest

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.confidence.cuda import factor, schedule, stages
from cm_lightning.confidence.cuda.schedule import PIVOTS, SIZE
from tests.confidence.cuda.host_device import solve_on_host

SHAPE = (70, 66)


@pytest.fixture
def solve(device, rng, monkeypatch):
    frames = rng.random((2, *SHAPE))

    def solve_with(method, **constants):
        for name, value in constants.items():
            monkeypatch.setattr(factor if name == "SHARED_BYTES" else stages, name, value)
        clear_caches()
        device.launches.clear()
        maps, info = solve_on_host(device, ConfidenceMapSolver(method=method), frames, certify=True)
        return maps, info.error_bound

    yield solve_with
    clear_caches()


def clear_caches():
    schedule.schedule.cache_clear()
    factor.upload_tables.cache_clear()


@pytest.mark.parametrize("method", ["cg", "direct"])
@pytest.mark.parametrize("shared_bytes", [0, 6_000, 15_000])
def test_small_and_large_fronts_are_eliminated_alike(device, solve, shared_bytes, method):
    maps, bounds = solve(method)
    assert "eliminate_panel" not in device.launches
    with_large, bounds_with_large = solve(method, SHARED_BYTES=shared_bytes)
    assert "eliminate_panel" in device.launches
    assert ("eliminate_fronts" in device.launches) == (shared_bytes > 0)
    # Weights are added in another order.
    np.testing.assert_allclose(with_large, maps, rtol=0, atol=1e-6 if method == "cg" else 1e-13)
    assert max(bounds.max(), bounds_with_large.max()) < 1e-8


@pytest.mark.parametrize("shared_bytes", [6_000, 15_000])
def test_a_level_may_have_small_and_large_fronts(device, solve, shared_bytes):
    solve("cg", SHARED_BYTES=shared_bytes)
    levels = factor.upload_tables(device, SHAPE, 4).levels
    assert any(small is not None and large is not None for small, large in levels)
    for members, (small, large) in zip(schedule.schedule(*SHAPE).levels, levels, strict=True):
        split = np.concatenate([part.fronts for part in (small, large) if part is not None])
        np.testing.assert_array_equal(np.sort(split), members)


@pytest.mark.parametrize("method", ["cg", "direct"])
@pytest.mark.parametrize("fronts", [1, 5, 40])
def test_substitution_in_groups_equals_that_in_one_block(device, solve, fronts, method):
    maps, bounds = solve(method)
    launches = len(device.launches)
    in_groups, bounds_in_groups = solve(method, FRONTS_OF_SMALL_GRIDS=0, FRONTS_OF_GROUPS=fronts, WARPS_OF_GROUPS=3)
    assert len(device.launches) > launches
    np.testing.assert_array_equal(in_groups, maps)
    np.testing.assert_array_equal(bounds_in_groups, bounds)


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (1, 40), (96, 96), (128, 128), (250, 210), (512, 476)])
def test_fronts_are_substituted_after_those_that_they_contain(shape):
    plan = schedule.schedule(*shape)
    finished = np.zeros(len(plan.fronts), bool)
    for stage in plan.stages:
        seen = finished.copy()
        for begin, end in zip(stage.groups[:-1], stage.groups[1:], strict=True):
            own = np.zeros(len(plan.fronts), bool)
            for first, last, panels, strips in stage.steps[begin:end]:
                members = plan.order[first:last]
                for halves in plan.fronts[members, schedule.FIRST :]:
                    assert (finished | own)[halves[halves >= 0]].all()
                own[members] = True
                assert (plan.fronts[members, PIVOTS] <= panels * schedule.PANEL).all()
                assert (plan.fronts[members, SIZE] <= strips * 32).all()
            assert not (seen & own).any()
            seen |= own
        finished = seen
    assert finished.all()


@pytest.mark.parametrize(("shape", "launches"), [((96, 96), 3), ((128, 128), 3), ((512, 476), 17)])
def test_substitution_takes_few_launches(shape, launches):
    # Those of the fronts, forward and backward except for the last stage, and two of the cells.
    assert 2 * len(schedule.schedule(*shape).stages) - 1 + 2 == launches
