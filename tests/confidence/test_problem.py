"""Parameters and input are checked at the border."""

import numpy as np
import pytest

from cm_lightning.confidence import ConfidenceMapSolver


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_frame_is_named(rng, bad):
    frames = rng.random((2, 3, 8, 6))
    frames[1, 2, 3, 3] = bad
    with pytest.raises(ValueError, match=r"frame \(1, 2\)"):
        ConfidenceMapSolver()(frames)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": -1.0}, "beta must be a finite number"),
        ({"tolerance": 0.0}, "tolerance must lie between 0 and 1"),
        ({"max_batch": 0}, "max_batch must be at least 1"),
        ({"formulation": "mine"}, "formulation must be one of reference, paper, realtime, found 'mine'"),
    ],
)
def test_refuses_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConfidenceMapSolver(**arguments)


def test_refuses_bad_input(rng):
    with pytest.raises(ValueError, match=r"domain of shape \(3, 3\)"):
        ConfidenceMapSolver()(rng.random((4, 4)), np.ones((3, 3), dtype=bool))
    with pytest.raises(ValueError, match="depth, lateral"):
        ConfidenceMapSolver()(np.ones(4))
    with pytest.raises(ValueError, match="at least one pixel"):
        ConfidenceMapSolver()(np.ones((3, 0)))
