"""The largest component of a class."""

import torch

from cm_lightning.metrics.components import keep_largest


def test_the_smaller_parts_of_the_chosen_classes_go():
    before = torch.tensor(
        [
            [1, 1, 0, 0, 2],
            [1, 0, 0, 0, 0],
            [0, 0, 0, 1, 2],
            [2, 2, 0, 0, 2],
        ],
        dtype=torch.uint8,
    )
    given, after = before.clone(), before.clone()
    after[2, 3] = 0
    assert torch.equal(keep_largest(given, [1]), after)
    assert torch.equal(given, before)
    assert keep_largest(before, [1]).dtype == before.dtype
    assert keep_largest(before, []) is before
    diagonal = torch.eye(4, dtype=torch.uint8)  # voxels that touch by a corner are one part
    assert torch.equal(keep_largest(diagonal, [1]), diagonal)
    nothing = torch.zeros(4, 4, 4, dtype=torch.uint8)
    assert torch.equal(keep_largest(nothing, [1, 2]), nothing)
