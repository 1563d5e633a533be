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
