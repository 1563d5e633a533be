"""Measures of repeated labels, compared with values computed by hand for a few pixels."""

import numpy as np
import pytest
import SimpleITK as sitk

from cm_lightning.uncertainty.raters import (
    agreement,
    areas,
    entropy,
    label_distribution,
    majority,
    pairwise_dice,
    staple,
)

# Two raters, two repeats each, five pixels, three classes.
LABELS = np.array([[0, 1, 1, 2, 0], [0, 1, 2, 2, 0], [0, 1, 1, 0, 2], [0, 1, 2, 1, 2]], dtype=np.uint8)
RATERS = ("anna", "anna", "ben", "ben")


def test_distribution_and_entropy_of_five_pixels():
    shares = label_distribution(LABELS, 3)
    np.testing.assert_allclose(shares, [[1, 0, 0, 0.25, 0.5], [0, 1, 0.5, 0.25, 0], [0, 0, 0.5, 0.5, 0.5]], atol=1e-7)
    np.testing.assert_allclose(entropy(shares), [0, 0, np.log(2), 1.5 * np.log(2), np.log(2)], atol=1e-6)


def test_majority_and_ties():
    np.testing.assert_array_equal(majority(LABELS, 3), [0, 1, 1, 2, 0])


def test_staple_equals_the_binary_filter_and_beats_the_majority(rng):
    truth = np.zeros((60, 60), dtype=np.uint8)
    truth[15:40, 20:50] = 1
    error_rates = np.array([0.02, 0.02, 0.35, 0.35, 0.35])
    labels = (truth ^ (rng.random((5, 60, 60)) < error_rates[:, None, None])).astype(np.uint8)
    binary = sitk.STAPLEImageFilter()
    binary.SetForegroundValue(1)
    probability = sitk.GetArrayFromImage(binary.Execute([sitk.GetImageFromArray(label) for label in labels]))
    fused = staple(labels, 2)
    assert (fused == (probability > 0.5)).mean() > 0.999
    assert (fused != truth).mean() < 0.5 * (majority(labels, 2) != truth).mean()


def test_staple_of_equal_labels_and_of_one_label():
    label = np.zeros((8, 8), dtype=np.uint8)
    label[2:5, 2:5], label[6, 6] = 1, 2
    for labels in (np.repeat(label[None], 3, axis=0), label[None], np.zeros((3, 8, 8), np.uint8)):
        np.testing.assert_array_equal(staple(labels, 3), labels[0])


def test_majority_decides_pixels_that_staple_leaves_undecided():
    label = np.zeros((20, 20), dtype=np.uint8)
    label[5:12, 5:12] = 1
    labels = np.stack([label, np.roll(label, 1, axis=0)])
    fused = staple(labels, 2)
    assert set(np.unique(fused)) == {0, 1}
    agreed = labels[0] == labels[1]
    np.testing.assert_array_equal(fused[agreed], label[agreed])


def test_areas_of_frames():
    labels = np.zeros((2, 4, 5, 3), dtype=np.uint8)
    labels[0, 1:3, 1:4, 0] = 1
    labels[0, 0, 0, 2] = 2
    labels[1, :, :, 1] = 2
    expected = np.array([[[6, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 20, 0]]]) * 0.1
    np.testing.assert_allclose(areas(labels, 3, (0.5, 0.2, 7.0)), expected)
    np.testing.assert_allclose(areas(labels[..., 0], 3, (0.5, 0.2)), expected[:, :, :1])


def test_dice_of_pairs_within_and_between_raters():
    dice = pairwise_dice(LABELS, 3)
    # Class 1 has 2, 1, 2 and 2 pixels; class 2 has 1, 2, 1 and 2 pixels.
    np.testing.assert_allclose(dice[0], [[1, 2 / 3, 1, 1 / 2], [2 / 3, 1, 2 / 3, 2 / 3], [1, 2 / 3, 1, 1 / 2],
                                         [1 / 2, 2 / 3, 1 / 2, 1]])  # fmt: skip
    result = agreement(dice, RATERS)
    np.testing.assert_allclose(result.intra, [(2 / 3 + 1 / 2) / 2, (2 / 3 + 2 / 3) / 2])
    np.testing.assert_allclose(result.inter, [(1 + 1 / 2 + 2 / 3 + 2 / 3) / 4, (0 + 0 + 0 + 1 / 2) / 4])


def test_agreement_without_pairs_is_nan():
    single = agreement(pairwise_dice(LABELS[:2], 3), ("anna", "ben"))
    assert np.isnan(single.intra).all()
    assert np.isfinite(single.inter).all()
    # Class 3 is only in the last label. Pairs without this label do not count.
    labels = np.concatenate([LABELS, np.full((1, 5), 3, dtype=np.uint8)])
    result = agreement(pairwise_dice(labels, 4), (*RATERS, "carl"))
    assert np.isnan(result.intra[2])
    assert result.inter[2] == 0


def test_invalid_class_indices_raise_errors():
    for measure in (label_distribution, pairwise_dice, majority, staple):
        with pytest.raises(ValueError, match="contain class index 2; expected indices below 2"):
            measure(LABELS, 2)
