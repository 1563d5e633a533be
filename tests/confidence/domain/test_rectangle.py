"""Rectangles inside black bands."""

import numpy as np
import pytest
from PIL import Image

from cm_lightning.confidence import linear_probe_domain


def test_finds_the_rectangle_despite_marks_and_dark_tissue(rng):
    frame = np.zeros((80, 90))
    frame[10:60, 20:80] = rng.random((50, 60)) + 0.1
    frame[40:55, 30:70] = 0  # a shadow
    frame[30:36, 5:9] = 1  # a mark burned into the left band
    frame[70, 40] = 0.5  # a speck in the lower band
    expected = np.zeros(frame.shape, dtype=bool)
    expected[10:60, 20:80] = True
    np.testing.assert_array_equal(linear_probe_domain(frame), expected)
    np.testing.assert_array_equal(linear_probe_domain(np.stack([frame, frame])), np.stack([expected] * 2))


def test_black_frame_has_no_domain():
    assert not linear_probe_domain(np.zeros((5, 6))).any()


@pytest.mark.parametrize(("case", "rows", "columns"), [("0000", (68, 403), (0, 511)), ("0014", (0, 475), (71, 438))])
def test_real_frames(real_data, case, rows, columns):
    domain = linear_probe_domain(np.asarray(Image.open(real_data / "usgra_seg" / "images" / f"{case}.png")))
    assert tuple(np.flatnonzero(domain.any(axis=1))[[0, -1]]) == rows
    assert tuple(np.flatnonzero(domain.any(axis=0))[[0, -1]]) == columns
