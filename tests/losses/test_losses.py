"""Segmentation losses, compared with values computed by hand and with known minimisers."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cm_lightning.data.ignored import IGNORED_INDEX
from cm_lightning.losses import ConfidenceCrossEntropy, SegmentationLoss


def test_confidence_cross_entropy_is_equation_1():
    probabilities = torch.tensor([[0.7, 0.2, 0.5], [0.2, 0.5, 0.25], [0.1, 0.3, 0.25]])  # class x voxel
    label = torch.tensor([0, 1, 2])
    confidence = torch.tensor([1.0, 0.5, 0.1])
    # -1/m sum_i (Y_i CM_i) log(Yhat_i)
    expected = -(1.0 * np.log(0.7) + 0.5 * np.log(0.5) + 0.1 * np.log(0.25)) / 3
    loss = ConfidenceCrossEntropy()(probabilities.log()[None], label[None, None], confidence[None, None])
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_loss_at_full_and_at_zero_confidence():
    logits, label = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 1, 4, 5))
    loss = ConfidenceCrossEntropy()
    torch.testing.assert_close(loss(logits, label, torch.ones(2, 1, 4, 5)), F.cross_entropy(logits, label[:, 0]))
    assert loss(logits, label, torch.zeros(2, 1, 4, 5)).item() == 0


def test_dice_loss_agrees_with_value_computed_by_hand():
    # Class 1 is predicted in voxels {0, 1} instead of {1, 2}, and background in {2, 3} instead of {0, 3}.
    prediction, label = torch.tensor([1, 1, 0, 0]), torch.tensor([[[0, 1, 1, 0]]])
    logits = 50.0 * F.one_hot(prediction).T.float()[None]
    assert SegmentationLoss("dice")(logits, label).item() == pytest.approx(1 - 0.5, abs=1e-4)


def test_combined_losses_are_sums():
    logits, label = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 1, 8, 8))
    confidence = torch.rand(2, 1, 8, 8)
    value = {
        name: SegmentationLoss(name)(logits, label, confidence)
        for name in ("dice", "CE", "diceCE", "CEconf", "diceCEconf")
    }
    torch.testing.assert_close(value["diceCE"], value["dice"] + value["CE"])
    torch.testing.assert_close(value["diceCEconf"], value["dice"] + value["CEconf"])


def test_cross_entropy_is_that_of_pytorch():
    logits, label = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 1, 4, 5))
    expected = F.cross_entropy(logits, label[:, 0])
    torch.testing.assert_close(SegmentationLoss("CE")(logits, label), expected)
    confidence = torch.ones(2, 1, 4, 5)
    torch.testing.assert_close(SegmentationLoss("CEconf")(logits, label, confidence), expected)


def test_dice_loss_without_background_is_the_mean_over_the_classes():
    logits, label = torch.randn(2, 3, 6, 6), torch.randint(0, 3, (2, 1, 6, 6))
    probabilities = logits.softmax(dim=1)
    expected = []
    for index in (1, 2):
        target = (label[:, 0] == index).float()
        both = (probabilities[:, index] * target).sum()
        expected.append(1 - 2 * both / (probabilities[:, index].sum() + target.sum()))
    loss = SegmentationLoss("dice", batch_dice=True, dice_background=False)(logits, label)
    assert loss.item() == pytest.approx(float(sum(expected)) / 2, abs=1e-4)


def test_batch_dice_reduces_the_loss_of_an_absent_class():
    label = torch.zeros(2, 1, 8, 8, dtype=torch.long)
    label[0, 0, :4] = 1
    logits = 20.0 * F.one_hot(label[:, 0], 2).movedim(-1, 1).float()
    logits[1, 1, 0, 0], logits[1, 0, 0, 0] = 20.0, 0.0  # one wrong pixel in the image without the class
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


def test_invalid_names_and_missing_confidence_raise_errors():
    with pytest.raises(ValueError, match="Unknown loss 'focal'; expected one of dice, CE"):
        SegmentationLoss("focal")
    with pytest.raises(ValueError, match="CEconf needs confidence maps"):
        SegmentationLoss("CEconf")(torch.randn(1, 2, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.long))


def minimise(loss, label, confidence, shared=False):
    """Return the probabilities that minimise a loss, for each voxel or shared by all voxels."""
    logits = torch.zeros(1, 3, 1 if shared else label.numel(), dtype=torch.float32, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], lr=1, max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(logits.expand(1, 3, label.numel()), label[None, None], confidence[None, None])
        value.backward()
        return value

    optimizer.step(closure)
    return logits.detach().softmax(dim=1)[0].T


LABEL, CONFIDENCE = torch.tensor([1, 2, 0, 1]), torch.tensor([0.9, 0.4, 0.3, 0.6])


def test_minimisers_of_soft_target_and_mask():
    soft = minimise(ConfidenceCrossEntropy("soft", "background"), LABEL, CONFIDENCE)
    expected = torch.tensor([[0.1, 0.9, 0.0], [0.6, 0.0, 0.4], [1.0, 0.0, 0.0], [0.4, 0.6, 0.0]])
    torch.testing.assert_close(soft, expected, atol=2e-3, rtol=0)

    uniform = minimise(ConfidenceCrossEntropy("soft", "uniform"), LABEL, CONFIDENCE)
    remainder = ((1 - CONFIDENCE) / 3)[:, None]
    expected = remainder + CONFIDENCE[:, None] * F.one_hot(LABEL, 3)
    torch.testing.assert_close(uniform, expected, atol=2e-3, rtol=0)

    # With the mask of the study, predictions become certain at any confidence.
    mask = minimise(ConfidenceCrossEntropy(), LABEL, CONFIDENCE)
    assert mask[range(4), LABEL].min() > 0.98


def test_minimisers_shared_by_all_voxels():
    # The mask weights labels by their confidence: 0.3 for background, 1.5 for class 1 and 0.4 for class 2.
    mask = minimise(ConfidenceCrossEntropy(), LABEL, CONFIDENCE, shared=True)[0]
    torch.testing.assert_close(mask, torch.tensor([0.3, 1.5, 0.4]) / 2.2, atol=1e-3, rtol=0)
    # The minimiser for the soft target is the mean of the four target distributions.
    soft = minimise(ConfidenceCrossEntropy("soft", "background"), LABEL, CONFIDENCE, shared=True)[0]
    torch.testing.assert_close(soft, torch.tensor([2.1, 1.5, 0.4]) / 4, atol=1e-3, rtol=0)


@pytest.mark.parametrize("remainder", ["background", "uniform"])
def test_soft_target_at_full_confidence_is_cross_entropy(remainder):
    logits, label = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 1, 4, 5))
    loss = ConfidenceCrossEntropy("soft", remainder)
    torch.testing.assert_close(loss(logits, label, torch.ones(2, 1, 4, 5)), F.cross_entropy(logits, label[:, 0]))


def test_soft_target_is_finite_in_half_precision_at_zero_confidence():
    logits = (60 * torch.randn(1, 3, 6, 6)).bfloat16().requires_grad_()
    loss = SegmentationLoss("diceCEconf", target="soft", remainder="uniform")
    value = loss(logits, torch.randint(0, 3, (1, 1, 6, 6)), torch.zeros(1, 1, 6, 6).bfloat16())
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


def test_weight_of_the_cross_entropy_applies_only_to_sums():
    logits, label, confidence = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 1, 8, 8)), torch.rand(2, 1, 8, 8)
    parts = [SegmentationLoss(name)(logits, label, confidence) for name in ("dice", "CEconf")]
    weighted = SegmentationLoss("diceCEconf", cross_entropy_weight=0.25)(logits, label, confidence)
    torch.testing.assert_close(weighted, parts[0] + 0.25 * parts[1])
    without_dice = SegmentationLoss("CEconf", cross_entropy_weight=0.25)(logits, label, confidence)
    torch.testing.assert_close(without_dice, parts[1])


def test_invalid_targets_and_weights_raise_errors():
    with pytest.raises(ValueError, match="Unknown target 'hard'; expected one of mask, soft"):
        ConfidenceCrossEntropy("hard")
    with pytest.raises(ValueError, match="Unknown remainder 'muscle'; expected one of background, uniform"):
        ConfidenceCrossEntropy("soft", "muscle")
    with pytest.raises(ValueError, match="soft target needs the loss CEconf or diceCEconf, found dice"):
        SegmentationLoss("dice", target="soft")
    with pytest.raises(ValueError, match="cross_entropy_weight must be positive"):
        SegmentationLoss("diceCE", cross_entropy_weight=0)


@pytest.mark.parametrize("name", ["dice", "CE", "diceCE", "CEconf", "diceCEconf"])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_voxels_to_ignore_are_as_if_they_were_cut_off(name, batch_dice):
    logits = torch.randn(2, 3, 6, 5, requires_grad=True)
    label, confidence = torch.randint(0, 3, (2, 1, 6, 5)), torch.rand(2, 1, 6, 5)
    loss = SegmentationLoss(name, batch_dice)
    expected = loss(logits[:, :, :4], label[:, :, :4], confidence[:, :, :4])
    label[:, :, 4:] = IGNORED_INDEX
    value = loss(logits, label, confidence)
    torch.testing.assert_close(value, expected)
    value.backward()
    assert not logits.grad[:, :, 4:].any()
    assert logits.grad[:, :, :4].any()


@pytest.mark.parametrize("name", ["dice", "CE", "diceCE", "CEconf", "diceCEconf"])
def test_a_patch_without_known_voxels_teaches_nothing(name):
    logits = torch.randn(1, 3, 6, 5, requires_grad=True)
    label = torch.full((1, 1, 6, 5), IGNORED_INDEX, dtype=torch.uint8)
    loss = SegmentationLoss(name)(logits, label, torch.ones(1, 1, 6, 5))
    assert loss.isfinite()
    loss.backward()
    assert not logits.grad.any()


@pytest.mark.parametrize("remainder", ["background", "uniform"])
def test_soft_targets_leave_out_voxels_to_ignore(remainder):
    logits, label, confidence = torch.randn(1, 3, 6, 5), torch.randint(0, 3, (1, 1, 6, 5)), torch.rand(1, 1, 6, 5)
    loss = ConfidenceCrossEntropy("soft", remainder)
    expected = loss(logits[..., 2:], label[..., 2:], confidence[..., 2:])
    label[..., :2] = IGNORED_INDEX
    torch.testing.assert_close(loss(logits, label, confidence), expected)


@pytest.mark.parametrize("name", ["CE", "CEconf"])
def test_a_single_known_voxel_counts_by_itself(name):
    logits, label = torch.randn(1, 3, 6, 5), torch.full((1, 1, 6, 5), IGNORED_INDEX)
    label[0, 0, 2, 3] = 1
    value = SegmentationLoss(name)(logits, label, torch.ones(1, 1, 6, 5))
    torch.testing.assert_close(value, -logits[0, :, 2, 3].log_softmax(0)[1])
