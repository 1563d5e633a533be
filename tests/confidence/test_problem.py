"""Checks of parameters and input of the solver."""

import numpy as np
import pytest

from cm_lightning.confidence import ConfidenceMapSolver


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_error_for_non_finite_frames_contains_the_index(rng, value):
    frames = rng.random((2, 3, 8, 6))
    frames[1, 2, 3, 3] = value
    with pytest.raises(ValueError, match=r"frame \(1, 2\)"):
        ConfidenceMapSolver()(frames)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": -1.0}, "beta must be a finite number"),
        ({"tolerance": 0.0}, "tolerance must be between 0 and 1"),
        ({"max_batch": 0}, "max_batch must be at least 1"),
        ({"formulation": "mine"}, "formulation must be one of reference, paper, realtime, found 'mine'"),
    ],
)
def test_invalid_parameters_raise_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConfidenceMapSolver(**arguments)


def test_invalid_input_raises_errors(rng):
    with pytest.raises(ValueError, match=r"domain has the shape \(3, 3\), which cannot be broadcast"):
        ConfidenceMapSolver()(rng.random((4, 4)), np.ones((3, 3), dtype=bool))
    with pytest.raises(ValueError, match="depth, lateral"):
        ConfidenceMapSolver()(np.ones(4))
    with pytest.raises(ValueError, match="at least one pixel"):
        ConfidenceMapSolver()(np.ones((3, 0)))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.arange(80.0).reshape(8, 10), r"from 0 to 1, or integers; found intensities from 0 to 79"),
        (np.linspace(-60, 0, 80).reshape(8, 10), r"found intensities from -60 to 0"),
        (np.arange(80, dtype=np.int16).reshape(8, 10), r"found int16 with intensities from 0 to 79. Convert"),
        (np.arange(80, dtype=np.int32).reshape(8, 10), r"found int32"),
    ],
)
def test_unknown_scales_of_intensities_are_refused(frames, message):
    with pytest.raises(ValueError, match=message):
        ConfidenceMapSolver(normalise="fixed")(frames)
    assert ConfidenceMapSolver()(frames).shape == (8, 10)


def test_equal_scales_of_other_types_give_equal_maps(rng):
    frames = rng.integers(0, 256, (2, 24, 20), dtype=np.uint8)
    solver = ConfidenceMapSolver(normalise="fixed")
    expected = solver(frames)
    for other in (frames / 255, (frames / 255).astype(np.float32), frames.astype(np.uint16) * 257):
        np.testing.assert_allclose(solver(other), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((40, 30, 3), np.uint8, "seems to contain colour channels"),
        ((8, 10), np.complex64, "must be real, found complex64"),
    ],
)
def test_colours_and_complex_frames_are_refused(shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        ConfidenceMapSolver()(np.ones(shape, dtype))
