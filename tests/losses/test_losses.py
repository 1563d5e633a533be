"""Losses against hand-computed values and known optima."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cm_lightning.losses import ConfidenceCrossEntropy, SegmentationLoss


def test_confidence_cross_entropy_is_equation_1():
    probabilities = torch.tensor([[0.7, 0.2, 0.5], [0.2, 0.5, 0.25], [0.1, 0.3, 0.25]])  # class x voxel
    label = torch.tensor([0, 1, 2])
    confidence = torch.tensor([1.0, 0.5, 0.1])
    # -1/m sum_i (Y_i CM_i) log(Yhat_i), written out.
    expected = -(1.0 * np.log(0.7) + 0.5 * np.log(0.5) + 0.1 * np.log(0.25)) / 3
    loss = ConfidenceCrossEntropy()(probabilities.log()[None], label[None, None], confidence[None, None])
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_full_confidence_is_cross_entropy_and_none_is_nothing():
    logits, label = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 1, 4, 5))
    loss = ConfidenceCrossEntropy()
    torch.testing.assert_close(loss(logits, label, torch.ones(2, 1, 4, 5)), F.cross_entropy(logits, label[:, 0]))
    assert loss(logits, label, torch.zeros(2, 1, 4, 5)).item() == 0


def test_dice_by_hand():
    # Certain predictions: class 1 is {0, 1} and should be {1, 2}; background {2, 3} and should be {0, 3}.
    prediction, label = torch.tensor([1, 1, 0, 0]), torch.tensor([[[0, 1, 1, 0]]])
    logits = 50.0 * F.one_hot(prediction).T.float()[None]
    assert SegmentationLoss("dice")(logits, label).item() == pytest.approx(1 - 0.5, abs=1e-4)


def test_sums_are_sums():
    logits, label = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 1, 8, 8))
    confidence = torch.rand(2, 1, 8, 8)
    value = {
        name: SegmentationLoss(name)(logits, label, confidence)
        for name in ("dice", "CE", "diceCE", "CEconf", "diceCEconf")
    }
    torch.testing.assert_close(value["diceCE"], value["dice"] + value["CE"])
    torch.testing.assert_close(value["diceCEconf"], value["dice"] + value["CEconf"])


def test_batch_dice_forgives_an_absent_class():
    label = torch.zeros(2, 1, 8, 8, dtype=torch.long)
    label[0, 0, :4] = 1
    logits = 20.0 * F.one_hot(label[:, 0], 2).movedim(-1, 1).float()
    logits[1, 1, 0, 0], logits[1, 0, 0, 0] = 20.0, 0.0  # one wrong pixel where the class is absent
    assert SegmentationLoss("dice", batch_dice=True)(logits, label) < 0.05
    assert SegmentationLoss("dice", batch_dice=False)(logits, label) > 0.2


@pytest.mark.parametrize("name", ["dice", "CE", "diceCE", "CEconf", "diceCEconf"])
def test_half_precision_logits_give_a_finite_float32_loss_and_gradient(name):
    logits = (60 * torch.randn(1, 3, 6, 6)).bfloat16().requires_grad_()
    loss = SegmentationLoss(name)(logits, torch.randint(0, 3, (1, 1, 6, 6)), torch.zeros(1, 1, 6, 6).bfloat16())
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_refusals():
    with pytest.raises(ValueError, match="Unknown loss 'focal'; expected one of dice, CE"):
        SegmentationLoss("focal")
    with pytest.raises(ValueError, match="CEconf needs confidence maps"):
        SegmentationLoss("CEconf")(torch.randn(1, 2, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.long))
