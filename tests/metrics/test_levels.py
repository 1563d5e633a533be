"""Correct and wrong voxels by confidence and depth, compared with counts by hand."""

import pandas as pd
import torch

from cm_lightning.metrics.levels import confidence_levels, depth_levels, level_rows


def test_depth_levels_cover_the_domain_of_every_column():
    domain = torch.zeros(24, 3, dtype=torch.bool)
    domain[2:22, 0] = True  # twenty rows: two per level
    domain[4:14, 1] = True  # ten rows, as in a column of a fan: one per level
    levels = depth_levels(domain)
    assert levels[2:22, 0].tolist() == [level for level in range(10) for _ in range(2)]
    assert levels[4:14, 1].tolist() == list(range(10))
    assert (levels[~domain] == -1).all()
    assert (levels[:, 2] == -1).all()
    volume = depth_levels(domain[:, :, None].expand(-1, -1, 4))
    assert (volume == levels[:, :, None]).all()


def test_confidence_of_one_is_in_the_highest_level():
    confidence = torch.tensor([[0.0, 0.099, 0.1], [0.55, 0.999, 1.0]])
    domain = torch.tensor([[True, True, True], [True, True, True]])
    assert confidence_levels(confidence, domain).tolist() == [[0, 0, 1], [5, 9, 9]]
    assert confidence_levels(confidence, ~domain).tolist() == [[-1, -1, -1], [-1, -1, -1]]


def test_counts_by_hand():
    label = torch.tensor([[1, 1, 0, 2], [1, 0, 2, 2]])
    prediction = torch.tensor([[1, 0, 1, 2], [1, 0, 1, 0]])
    level = torch.tensor([[0, 0, 0, 0], [9, 9, 9, -1]])  # one voxel of class 2 is not insonified
    rows = pd.DataFrame(level_rows(prediction, label, ["a", "b"], {"depth": level}, case="x")).set_index(
        ["class", "level"]
    )
    counts = rows[["true_positive", "false_positive", "false_negative"]]
    assert counts.loc[("a", 0)].tolist() == [1, 1, 1]
    assert counts.loc[("a", 9)].tolist() == [1, 1, 0]
    assert counts.loc[("b", 0)].tolist() == [1, 0, 0]
    assert counts.loc[("b", 9)].tolist() == [0, 0, 1]
    assert len(rows) == 20
    assert counts.to_numpy().sum() == 7
    assert set(rows["case"]) == {"x"}
