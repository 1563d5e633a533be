"""Errors by confidence and depth over participants, by hand."""

import math

import pandas as pd
import pytest

from cm_lightning.evaluation.levels import error_profile, participant_errors


def row(model, patient, level, right, wrong, seed=0, name="a"):
    counts = {"true_positive": right, "false_positive": wrong, "false_negative": 0}
    return {"model": model, "seed": seed, "patient": patient, "class": name, "by": "depth", "level": level, **counts}


@pytest.fixture
def levels():
    return pd.DataFrame(
        [
            row("one", "p", 0, 3, 1),
            row("one", "p", 0, 1, 3, seed=1),  # seeds of a participant are taken together: 4 of 8
            row("one", "p", 9, 0, 2),
            row("one", "q", 0, 1, 0),
            row("one", "q", 0, 0, 1, name="b"),  # and classes: 1 of 2
            row("one", "q", 9, 0, 0),
            row("two", "p", 0, 4, 0),
        ]
    )


def test_error_of_a_participant_is_over_all_voxels_of_all_classes(levels):
    errors = participant_errors(levels, "depth", [0])
    assert errors["one"].to_dict() == {"p": 0.5, "q": 0.5}
    assert errors["two"]["p"] == 0
    assert math.isnan(errors["two"]["q"])
    assert participant_errors(levels, "depth", [0, 9])["one"]["p"] == pytest.approx(6 / 10)
    assert participant_errors(levels, "confidence", [0]).empty


def test_profile_leaves_out_participants_with_nothing_there(levels):
    profile = error_profile(levels, "depth")
    assert profile.loc["one"].tolist() == [0.5, 1.0]
    assert profile.loc["two", 0] == 0
    assert math.isnan(profile.loc["two", 9])
