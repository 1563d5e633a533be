"""Folding of displacement fields."""

import torch

from cm_lightning.metrics.registration import folding_fraction


def test_identity_and_affine_fields_do_not_fold():
    grid = torch.stack(torch.meshgrid(*[torch.arange(8.0)] * 3, indexing="ij"))[None]
    assert folding_fraction(torch.zeros(1, 3, 8, 8, 8)).item() == 0
    assert folding_fraction(0.5 * grid).item() == 0
    assert folding_fraction(-0.99 * grid).item() == 0


def test_a_mirrored_axis_folds_everywhere_and_two_do_not():
    grid = torch.stack(torch.meshgrid(*[torch.arange(8.0)] * 2, indexing="ij"))[None]
    one = torch.zeros_like(grid)
    one[:, 0] = -2 * grid[:, 0]  # x -> -x
    assert folding_fraction(one).item() == 1
    assert folding_fraction(-2 * grid).item() == 0  # a rotation by 180 degrees


def test_a_fold_is_counted_where_it_is():
    field = torch.zeros(2, 2, 10, 6)
    # In the first of two fields, row 4 is moved behind row 6: by central differences rows 4 +- 1 and their
    # neighbours see steps of 1 + 3/2 and 1 - 3/2.
    field[0, 0, 4] = 3
    torch.testing.assert_close(folding_fraction(field), torch.tensor([0.1, 0.0]))
