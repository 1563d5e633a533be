"""Calibration errors, compared with values computed by hand, with MONAI and with simulated calibrated models."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from monai.metrics import CalibrationErrorMetric
from monai.metrics.calibration import calibration_binning

from cm_lightning.metrics import apply_empty_policy, case_rows
from cm_lightning.metrics import calibration as module
from cm_lightning.metrics.calibration import (
    BINS,
    SUMS,
    calibration_errors,
    calibration_rows,
    chance_calibration_errors,
    expected_calibration_error,
    null_calibration_error,
    reliability,
    sums_by_bin,
)


def count(probability, truth, domain=None):
    domain = torch.ones_like(truth, dtype=torch.bool) if domain is None else domain
    return pd.DataFrame(calibration_rows([probability], truth, ["a"], domain, case="c"))


def simulate(generator, sharpness=1.0, voxels=(100, 200)):
    """Return probabilities and labels; the probabilities are overconfident if the sharpness is above 1."""
    logits = torch.randn(voxels, generator=generator) * 2
    truth = torch.bernoulli(logits.sigmoid(), generator=generator).to(torch.uint8)
    return (logits * sharpness).sigmoid(), truth


def test_calibration_errors_by_hand():
    probability = torch.tensor([[0.02, 0.02, 0.04, 0.62], [0.64, 1.0, 0.99, 0.5]])
    label = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]], dtype=torch.uint8)
    domain = torch.ones_like(label, dtype=torch.bool)
    domain[1, 3] = False
    rows = count(probability, label, domain)
    filled = rows[rows["count"] > 0].set_index("bin")
    assert filled["count"].to_dict() == {0: 3, 12: 2, 19: 2}
    assert filled["positive"].to_dict() == {0: 1, 12: 1, 19: 2}
    assert filled["probability"].tolist() == pytest.approx([0.08, 1.26, 1.99])
    errors = calibration_errors(rows, ["class"]).loc["a"]
    gaps = [(1 - 0.08) / 3, (1.26 - 1) / 2, (2 - 1.99) / 2]
    assert errors["ece"] == pytest.approx((3 * gaps[0] + 2 * gaps[1] + 2 * gaps[2]) / 7)
    assert errors["ace"] == pytest.approx(sum(gaps) / 3)
    brier = (2 * 0.02**2 + 0.96**2 + 0.38**2 + 0.64**2 + 0 + 0.01**2) / 7
    assert errors["brier"] == pytest.approx(brier)
    assert len(rows) == BINS
    assert calibration_errors(count(probability, label, domain & False), ["class"]).isna().all(axis=None)


def test_agrees_with_monai(monkeypatch):
    monkeypatch.setattr(module, "VOXELS_AT_A_TIME", 1000)
    generator = torch.Generator().manual_seed(0)
    probabilities = (2 * torch.randn(3, 24, 20, 18, generator=generator)).softmax(dim=0)
    label = torch.randint(0, 3, (24, 20, 18), generator=generator)
    one_hot = torch.nn.functional.one_hot(label).movedim(-1, 0)
    rows = pd.DataFrame(
        calibration_rows(iter(probabilities[1:]), label, ["a", "b"], torch.ones_like(label, dtype=torch.bool))
    )
    _, sums = sums_by_bin(rows, ["class"])
    predicted, frequency, voxels = (
        x[0].numpy() for x in calibration_binning(probabilities[None, 1:], one_hot[None, 1:])
    )
    np.testing.assert_array_equal(sums["count"], voxels)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(sums["probability"] / sums["count"], predicted, rtol=1e-4)
        np.testing.assert_allclose(sums["positive"] / sums["count"], frequency, rtol=1e-5)
    errors = calibration_errors(rows, ["class"])
    for name, reduction in (("ece", "expected"), ("ace", "average")):
        metric = CalibrationErrorMetric(include_background=False, calibration_reduction=reduction)
        (expected,) = metric(probabilities[None], one_hot[None])
        np.testing.assert_allclose(errors[name], expected, rtol=1e-4)
    squares = (probabilities[1:] - one_hot[1:]).double().square().flatten(1).mean(dim=1)
    np.testing.assert_allclose(errors["brier"], squares, rtol=1e-5)


def test_counts_are_exact_beyond_float32():
    shape = (2**12 + 1, 2**12)
    label = torch.zeros(1, 1, dtype=torch.uint8).expand(shape)
    probability = torch.full((1, 1), 0.25).expand(shape)
    row = count(probability, label, torch.ones(1, 1, dtype=torch.bool).expand(shape)).loc[5]
    assert row["count"] == 2**24 + 2**12
    assert row["probability"] == 0.25 * (2**24 + 2**12)
    assert row["squared_error"] == 0.0625 * (2**24 + 2**12)


@pytest.mark.parametrize("seed", range(5))
def test_ece_of_a_calibrated_model_is_below_the_null_quantile_and_others_are_above(seed):
    for sharpness, calibrated in ((1.0, True), (1.3, False), (0.7, False)):
        rows = count(*simulate(torch.Generator().manual_seed(seed), sharpness))
        error = calibration_errors(rows, ["class"])["ece"].item()
        _, sums = sums_by_bin(rows, ["class"])
        (bound,) = null_calibration_error(sums["count"], sums["probability"])
        assert error > 0  # also for a calibrated model
        assert (error < bound) == calibrated


def test_null_quantile_equals_that_of_labels_drawn_for_every_voxel():
    generator = torch.Generator().manual_seed(0)
    probability, _ = simulate(generator, voxels=(20, 50))
    label = torch.zeros(20, 50, dtype=torch.uint8)
    _, sums = sums_by_bin(count(probability, label), ["class"])
    bins = (probability.double() * BINS).long().flatten()
    errors = []
    for _ in range(2000):
        label = torch.bernoulli(probability, generator=generator).long().flatten()
        positive = torch.bincount(bins[label == 1], minlength=BINS).numpy()
        errors.append(expected_calibration_error(sums["count"][0], sums["probability"][0], positive))
    for quantile in (0.5, 0.975):
        (error,) = null_calibration_error(sums["count"], sums["probability"], quantile, draws=2000)
        assert error == pytest.approx(np.quantile(errors, quantile), rel=0.03)


def test_chance_error_of_a_single_voxel_by_hand():
    errors = chance_calibration_errors(np.array([1.0]), np.array([0.8]), draws=20000)
    # 0.2 if the voxel is positive, which has a probability of 0.8, and 0.8 otherwise.
    assert set(errors.round(6)) == {0.2, 0.8}
    assert errors.mean() == pytest.approx(0.8 * 0.2 + 0.2 * 0.8, abs=0.01)


def test_calibration_is_scored_for_empty_masks():
    empty, full = torch.zeros(4, 4, dtype=torch.uint8), torch.ones(4, 4, dtype=torch.uint8)
    tables = []
    for case, (prediction, label) in {"absent": (empty, empty), "lost": (empty, full)}.items():
        rows = count(torch.full((4, 4), 0.25), label)
        errors = calibration_errors(rows, ["class"])
        tables += case_rows(prediction, label, ["a"], (1.0, 1.0), probability_metrics=errors, case=case, patient=case)
    for policy in ("worst", "detected"):
        scored = apply_empty_policy(pd.DataFrame(tables), policy)
        brier = scored[scored["metric"] == "brier"].set_index("case")["value"]
        assert brier.to_dict() == {"absent": 0.0625, "lost": 0.5625}
        assert "absent" not in set(scored[scored["metric"] == "dice"]["case"])


def test_bins_of_a_single_voxel_are_in_the_reliability_diagram_and_empty_ones_are_not():
    probability = torch.tensor([[0.05, 0.25], [0.25, 0.95]])
    rows = count(probability, torch.tensor([[0, 1], [0, 1]], dtype=torch.uint8))
    diagram = reliability(rows.assign(case="x", model="m", calibration="none"))
    assert diagram["count"].tolist() == [1, 2, 1]
    np.testing.assert_allclose(diagram["probability"], [0.05, 0.25, 0.95], rtol=1e-6)
    assert diagram["frequency"].tolist() == [0.0, 0.5, 1.0]


def test_missing_bins_are_filled_with_zeros():
    rows = count(torch.full((2, 2), 0.25), torch.zeros(2, 2, dtype=torch.uint8))
    parts = pd.concat([rows.assign(case="x"), rows[rows["count"] > 0].assign(case="y")])
    _, sums = sums_by_bin(parts, ["case"])
    for name in SUMS:
        np.testing.assert_array_equal(*sums[name])
    assert math.isclose(calibration_errors(parts, ["case"]).loc["y", "ece"], 0.25)
