"""Tests of the order and the indices of the elimination on the CPU."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_lightning.confidence.cpu.plan import CELL, CELL_RING, MIN_CELLS, make_layout, ring_of_cell
from cm_lightning.confidence.cpu.program import make_program
from cm_lightning.confidence.cpu.vectors import LANES
from cm_lightning.confidence.tree import grow_tree, list_pixels

SHAPES = [(33, 20), (20, 64), (100, 97), (1, 400), (400, 1), (300, 301), (512, 476), (128, 33)]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.integers(0, 1))
def test_every_pixel_is_eliminated_once_and_separated_from_the_other_half(height, width, leaf, margin):
    depth, lateral = height + 2 * margin, width + 2 * margin
    tree = grow_tree(margin, margin + height, margin, margin + width, leaf)
    pixels, start, pivots = list_pixels(tree, depth, lateral)
    eliminated = [pixels[start[node] : start[node] + pivots[node]] for node in range(len(pivots))]
    inside = np.zeros((depth, lateral), bool)
    inside[margin : margin + height, margin : margin + width] = True
    np.testing.assert_array_equal(np.sort(np.concatenate(eliminated)), np.flatnonzero(inside))
    order = np.full(depth * lateral, depth * lateral)
    order[np.concatenate(eliminated)] = np.arange(height * width)
    for node, (top, bottom, left, right) in enumerate(tree.rectangles):
        own = pixels[start[node] : start[node + 1]]
        ring = own[pivots[node] :]
        assert (np.diff(order[own]) > 0)[order[own[1:]] < depth * lateral].all()
        # The ring is what surrounds the rectangle, and is eliminated later than all of it.
        rows, columns = ring // lateral, ring % lateral
        distance = np.maximum.reduce([top - rows, rows - bottom + 1, left - columns, columns - right + 1])
        assert (distance == 1).all()
        block = np.arange(depth * lateral).reshape(depth, lateral)[top:bottom, left:right]
        assert order[block].max() < order[ring].min(initial=depth * lateral + 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_halves_add_every_value_to_the_same_pixel(shape):
    layout = make_layout(*shape)
    plan = layout.plan
    cells = {}
    for batch, (first, end, first_front, end_front) in enumerate(plan.batches):
        assert 0 < end - first <= LANES
        cells |= {batch % 2 * LANES + cell - first: cell for cell in range(first, end)}
        for front in range(first_front, end_front):
            _check_runs(plan, front, cells, shape)
    upper = [front for level in layout.levels for front in level]
    for front in upper:
        assert (plan.halves[front] >= 0).all()
        _check_runs(plan, front, cells, shape)
    fronts = [front for _, _, first, end in plan.batches for front in range(first, end)]
    assert sorted([*fronts, *upper]) == list(range(len(plan.pivots)))
    assert len(layout.roots) in (1, 2, 3, 4)
    assert (len(layout.roots) > 1) == (len(plan.corners) >= MIN_CELLS)


def _check_runs(plan, front, cells, shape):
    own = plan.pixels[plan.start[front] : plan.start[front + 1]]
    for half, child in enumerate(plan.halves[front]):
        runs = plan.runs[plan.run_start[2 * front + half] : plan.run_start[2 * front + half + 1]]
        assert (np.diff(runs[:, 1]) > 0).all()
        if child >= 0:
            ring = plan.pixels[plan.start[child] + plan.pivots[child] : plan.start[child + 1]]
        elif child <= -2:
            ring = np.empty(CELL_RING, np.int64)
            ring_of_cell(*plan.corners[cells[-2 - child]], *shape, ring)
        else:
            assert len(runs) == 0
            continue
        added = np.concatenate([np.arange(first, first + length) for first, _, length in runs])
        targets = np.concatenate([np.arange(target, target + length) for _, target, length in runs])
        np.testing.assert_array_equal(np.sort(added), np.flatnonzero(ring >= 0))
        np.testing.assert_array_equal(ring[added], own[targets])


def test_program_of_cells_ends_with_their_ring():
    program = make_program(CELL, CELL, 1)
    own = program.pixels[program.start[-2] :]
    ring = np.empty(CELL_RING, np.int64)
    ring_of_cell(1, 1, CELL + 2, CELL + 2, ring)
    np.testing.assert_array_equal(own[program.pivots[-1] :], ring)
    assert program.largest >= len(own)
