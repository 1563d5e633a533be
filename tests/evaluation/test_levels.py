"""Errors by confidence and depth over participants, with results computed by hand."""

import math

import pandas as pd
import pytest

from cm_lightning.evaluation.comparison import over_seeds
from cm_lightning.evaluation.levels import at_levels, deepest, error_profile, participant_errors


def count_row(model, patient, level, true_positive, false_positive, seed=0, class_name="a"):
    """Return a row of the table of counts."""
    counts = {"true_positive": true_positive, "false_positive": false_positive, "false_negative": 0}
    ids = {"model": model, "seed": seed, "patient": patient, "class": class_name}
    return {**ids, "by": "depth", "level": level, **counts}


@pytest.fixture
def levels():
    return pd.DataFrame(
        [
            count_row("first", "p", 0, 3, 1),
            count_row("first", "p", 0, 1, 3, seed=1),
            count_row("first", "p", 9, 0, 2),
            count_row("first", "q", 0, 1, 0),
            count_row("first", "q", 0, 0, 1, class_name="b"),  # sum over classes: 1 of 2
            count_row("first", "q", 9, 0, 0),
            count_row("second", "p", 0, 4, 0),
        ]
    )


def test_participant_error_is_summed_over_classes_and_averaged_over_seeds(levels):
    errors = over_seeds(participant_errors(levels, at_levels(levels, "depth", [0])))
    assert errors["first"].to_dict() == {"p": (1 / 4 + 3 / 4) / 2, "q": 0.5}
    assert errors["second"]["p"] == 0
    assert math.isnan(errors["second"]["q"])
    assert participant_errors(levels, at_levels(levels, "depth", [0, 9]))["first"][0]["p"] == pytest.approx(3 / 6)
    assert participant_errors(levels, at_levels(levels, "confidence", [0])).empty


def test_error_profile_ignores_participants_without_voxels_at_a_level(levels):
    profile = error_profile(levels, "depth")
    assert profile.loc["first"].tolist() == [0.5, 1.0]
    assert profile.loc["second", 0] == 0
    assert math.isnan(profile.loc["second", 9])


def test_deep_region_is_defined_by_labels_and_not_by_false_positives():
    """Patient p has 10 labelled voxels: 5 in level 1, 3 in level 3 and 2 in level 4. The labels of q are deeper."""
    labelled = {"p": {1: 5, 3: 3, 4: 2}, "q": {6: 8, 8: 2}}
    levels = pd.DataFrame(
        [
            count_row("first", patient, level, counts.get(level, 0), false_positive=level == 9)
            for patient, counts in labelled.items()
            for level in range(10)
        ]
    )
    levels.index += 100
    deep_levels = levels[deepest(levels)].groupby("patient")["level"].apply(list).to_dict()
    assert deep_levels == {"p": [3, 4, 5, 6, 7, 8, 9], "q": [6, 7, 8, 9]}
    levels["by"] = "confidence"
    assert not deepest(levels).any()
