"""Post-processing that keeps the largest connected component."""

import torch

from cm_lightning.metrics.components import keep_largest


def test_smaller_components_of_the_given_classes_are_removed():
    before = torch.tensor(
        [
            [1, 1, 0, 0, 2],
            [1, 0, 0, 0, 0],
            [0, 0, 0, 1, 2],
            [2, 2, 0, 0, 2],
        ],
        dtype=torch.uint8,
    )
    segmentation, expected = before.clone(), before.clone()
    expected[2, 3] = 0
    assert torch.equal(keep_largest(segmentation, [1]), expected)
    assert torch.equal(segmentation, before)
    assert keep_largest(before, [1]).dtype == before.dtype
    assert keep_largest(before, []) is before
    diagonal = torch.eye(4, dtype=torch.uint8)  # voxels that share a corner are connected
    assert torch.equal(keep_largest(diagonal, [1]), diagonal)
    background = torch.zeros(4, 4, 4, dtype=torch.uint8)
    assert torch.equal(keep_largest(background, [1, 2]), background)
