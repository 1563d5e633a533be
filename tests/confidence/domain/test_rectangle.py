"""Tests of rectangles inside a black background."""

import numpy as np
import pytest
from PIL import Image

from cm_lightning.confidence import linear_probe_domain


def test_rectangle_with_marks_and_shadow(rng):
    frame = np.zeros((80, 90))
    frame[10:60, 20:80] = rng.random((50, 60)) + 0.1
    frame[40:55, 30:70] = 0  # Shadow.
    frame[30:36, 5:9] = 1  # Burned-in mark at the left.
    frame[70, 40] = 0.5  # Bright pixel at the bottom.
    expected = np.zeros(frame.shape, dtype=bool)
    expected[10:60, 20:80] = True
    np.testing.assert_array_equal(linear_probe_domain(frame), expected)
    np.testing.assert_array_equal(linear_probe_domain(np.stack([frame, frame])), np.stack([expected] * 2))


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_background_of_frames_in_decibels_is_their_lowest_intensity(rng, dtype):
    grey = np.zeros((2, 80, 90))
    grey[0, 10:60, 20:80] = rng.uniform(20, 255, (50, 60))
    grey[1, 5:70, 30:80] = rng.uniform(20, 255, (65, 50))
    decibels = (grey / 255 * 60 - 60).astype(dtype)
    np.testing.assert_array_equal(linear_probe_domain(decibels), linear_probe_domain(grey))


def test_domain_of_a_black_frame_is_empty():
    assert not linear_probe_domain(np.zeros((5, 6))).any()


@pytest.mark.parametrize(("case", "rows", "columns"), [("0000", (68, 403), (0, 511)), ("0014", (0, 475), (71, 438))])
def test_rectangles_of_real_frames(real_data, case, rows, columns):
    domain = linear_probe_domain(np.asarray(Image.open(real_data / "usgra_seg" / "images" / f"{case}.png")))
    assert tuple(np.flatnonzero(domain.any(axis=1))[[0, -1]]) == rows
    assert tuple(np.flatnonzero(domain.any(axis=0))[[0, -1]]) == columns
