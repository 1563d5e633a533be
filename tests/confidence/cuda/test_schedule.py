"""Order of the elimination."""

import numpy as np
import pytest

from cm_lightning.confidence.cuda.pattern import CELL
from cm_lightning.confidence.cuda.schedule import FIRST, PIVOTS, SIZE, START, schedule


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (8, 8), (8, 3), (1, 50), (41, 1), (16, 17), (100, 63)])
def test_pixels_are_eliminated_once_and_after_the_parts_that_they_separate(shape):
    plan = schedule(*shape)
    eliminated = np.zeros(shape, dtype=int)
    for top, left in plan.corners:
        eliminated[top : top + CELL, left : left + CELL] += 1
    for front, fields in enumerate(plan.fronts):
        pixels = plan.nodes[fields[START] : fields[START] + fields[SIZE]]
        eliminated.flat[pixels[: fields[PIVOTS]]] += 1
        assert (fields[FIRST:] < front).all()
        assert len(np.unique(pixels)) == len(pixels)
    assert (eliminated == 1).all()
    assert sum(map(len, plan.levels)) == len(plan.fronts)
    parts = plan.fronts[:, FIRST:]
    np.testing.assert_array_equal(np.unique(-2 - parts[parts <= -2]), np.arange(len(plan.corners))[: parts.size])
