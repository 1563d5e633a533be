"""Order of the elimination."""

import numpy as np
import pytest

from cm_lightning.confidence.cuda.dissection import CELL, dissect


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (8, 8), (8, 3), (1, 50), (41, 1), (16, 17), (100, 63)])
def test_pixels_are_eliminated_once_and_after_the_parts_that_they_separate(shape):
    plan = dissect(*shape)
    eliminated = np.zeros(shape, dtype=int)
    for top, left in plan.corners:
        eliminated[top : top + CELL, left : left + CELL] += 1
    for front, (begin, end) in enumerate(zip(plan.start[:-1], plan.start[1:], strict=True)):
        pivots, ring = np.split(plan.nodes[begin:end], [plan.pivots[front]])
        eliminated.flat[pivots] += 1
        assert (plan.children[front] < front).all()
        assert len(np.unique(plan.nodes[begin:end])) == end - begin
        assert not set(pivots) & set(ring)
    assert (eliminated == 1).all()
