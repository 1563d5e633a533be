"""Orientation of frames by their texture."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cm_lightning.confidence.domain.orientation import gradient_ratio, lies_on_its_side


def test_ratio_is_that_of_the_resolution(rng):
    # The gradient energies of Gaussian noise after a Gaussian filter are inversely proportional to its variances.
    speckle = ndimage.gaussian_filter(rng.standard_normal((4, 300, 280)), (0, 2.0, 6.0)) + 1.0
    everywhere = np.ones((300, 280), dtype=bool)
    expected = (6.0**2 + 1.0) / (2.0**2 + 1.0)  # with the filter of the function itself
    assert gradient_ratio(speckle, everywhere) == pytest.approx(expected, rel=0.2)
    turned = np.swapaxes(speckle, 1, 2)
    assert gradient_ratio(turned, everywhere.T) == pytest.approx(1 / expected, rel=0.2)
    assert lies_on_its_side(turned, everywhere.T)
    assert not lies_on_its_side(speckle, everywhere)


def test_nothing_is_said_about_flat_frames():
    assert np.isnan(gradient_ratio(np.ones((2, 50, 40)), np.ones((50, 40), dtype=bool)))
    assert not lies_on_its_side(np.ones((1, 1, 1)), np.ones((1, 1), dtype=bool))


def test_real_frames(real_data):
    frames = sorted((real_data / "timtrack" / "frames").glob("*.png"))[::40]
    for path in frames:
        frame = np.asarray(Image.open(path).convert("L"))[60:-60, 60:-60]
        everywhere = np.ones(frame.shape, dtype=bool)
        assert not lies_on_its_side(frame[None], everywhere)
        assert lies_on_its_side(frame.T[None], everywhere.T)
