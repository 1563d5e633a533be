"""Folding of displacement fields."""

import torch

from cm_lightning.metrics.registration import folding_fraction


def test_identity_and_affine_fields_do_not_fold():
    grid = torch.stack(torch.meshgrid(*[torch.arange(8.0)] * 3, indexing="ij"))[None]
    assert folding_fraction(torch.zeros(1, 3, 8, 8, 8)).item() == 0
    assert folding_fraction(0.5 * grid).item() == 0
    assert folding_fraction(-0.99 * grid).item() == 0


def test_one_mirrored_axis_folds_everywhere_but_two_do_not():
    grid = torch.stack(torch.meshgrid(*[torch.arange(8.0)] * 2, indexing="ij"))[None]
    mirrored = torch.zeros_like(grid)
    mirrored[:, 0] = -2 * grid[:, 0]  # x -> -x
    assert folding_fraction(mirrored).item() == 1
    assert folding_fraction(-2 * grid).item() == 0  # a rotation by 180 degrees


def test_number_of_folded_voxels_by_hand():
    field = torch.zeros(2, 2, 10, 6)
    # In the first of two fields, row 4 is moved behind row 6. The central differences at rows 3 and 5 give the
    # derivatives 1 + 3/2 and 1 - 3/2.
    field[0, 0, 4] = 3
    torch.testing.assert_close(folding_fraction(field), torch.tensor([0.1, 0.0]))
