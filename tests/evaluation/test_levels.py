"""Errors by confidence and depth over participants, by hand."""

import math

import pandas as pd
import pytest

from cm_lightning.evaluation.levels import at_levels, deepest, error_profile, participant_errors


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
    errors = participant_errors(levels, at_levels(levels, "depth", [0]))
    assert errors["one"].to_dict() == {"p": 0.5, "q": 0.5}
    assert errors["two"]["p"] == 0
    assert math.isnan(errors["two"]["q"])
    assert participant_errors(levels, at_levels(levels, "depth", [0, 9]))["one"]["p"] == pytest.approx(6 / 10)
    assert participant_errors(levels, at_levels(levels, "confidence", [0])).empty


def test_profile_leaves_out_participants_with_nothing_there(levels):
    profile = error_profile(levels, "depth")
    assert profile.loc["one"].tolist() == [0.5, 1.0]
    assert profile.loc["two", 0] == 0
    assert math.isnan(profile.loc["two", 9])


def test_deep_is_where_the_deepest_labels_are_and_not_where_only_false_positives_are():
    """Patient p has 10 labelled voxels of which 2 are in level 4 and 3 in level 3; q's labels are deeper."""
    labelled = {"p": {1: 5, 3: 3, 4: 2}, "q": {6: 8, 8: 2}}
    levels = pd.DataFrame(
        [
            row("one", patient, level, counts.get(level, 0), wrong=level == 9)
            for patient, counts in labelled.items()
            for level in range(10)
        ]
    )
    levels.index += 100
    found = levels[deepest(levels)].groupby("patient")["level"].apply(list).to_dict()
    assert found == {"p": [3, 4, 5, 6, 7, 8, 9], "q": [6, 7, 8, 9]}
    levels["by"] = "confidence"
    assert not deepest(levels).any()
