"""Metrics, compared with values computed by hand, scikit-image and MONAI; policies for empty masks."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_confusion_matrix_metric,
    compute_hausdorff_distance,
    compute_surface_dice,
    get_confusion_matrix,
)
from scipy import ndimage
from skimage.metrics import hausdorff_distance
from skimage.segmentation import find_boundaries

from cm_lightning.data.ignored import IGNORED_INDEX
from cm_lightning.metrics import METRICS, apply_empty_policy, case_rows
from cm_lightning.metrics.empty import CONDITIONAL, detection_rate
from cm_lightning.metrics.segmentation import VOXELS, confusion_counts, dice_per_class
from cm_lightning.metrics.summary import summarise
from cm_lightning.metrics.summary_file import nested_summary


def measure(prediction, label, spacing, names=("a",), **columns) -> pd.DataFrame:
    columns = {"case": "c", "patient": "p", **columns}
    return pd.DataFrame(case_rows(torch.as_tensor(prediction), torch.as_tensor(label), names, spacing, **columns))


def values(rows: pd.DataFrame) -> dict[str, float]:
    return dict(zip(rows["metric"], rows["value"], strict=True))


def test_overlap_metrics_by_hand():
    label = np.zeros((4, 5), dtype=np.uint8)
    prediction = label.copy()
    label[1:3, 1:4] = 1  # 6 pixels
    prediction[1:3, 2:5] = 1  # 6 pixels, 4 of them in the label
    result = values(measure(prediction, label, (1.0, 1.0)))
    assert set(result) == {name for name, metric in METRICS.items() if not metric.needs_probabilities}
    assert result["dice"] == pytest.approx(8 / 12)
    assert result["iou"] == pytest.approx(4 / 8)
    assert result["precision"] == pytest.approx(4 / 6)
    assert result["recall"] == pytest.approx(4 / 6)
    assert result["miss_rate"] == pytest.approx(2 / 6)
    assert result["fall_out"] == pytest.approx(2 / 14)


def test_distances_use_the_spacing_of_each_axis():
    label, prediction = np.zeros((9, 9, 9), np.uint8), np.zeros((9, 9, 9), np.uint8)
    label[2, 4, 4] = 1
    prediction[5, 4, 4] = 1
    for axis_spacing, expected in (((2.0, 1.0, 1.0), 6.0), ((0.5, 9.0, 9.0), 1.5)):
        result = values(measure(prediction, label, axis_spacing))
        assert result["hd"] == pytest.approx(expected)
        assert result["asd"] == pytest.approx(expected)


def test_average_surface_distance_is_symmetric():
    label, prediction = np.zeros((1, 12), np.uint8), np.zeros((1, 12), np.uint8)
    label[0, 2], prediction[0, 2], prediction[0, 8] = 1, 1, 1
    # Distances are 0 and 6 from the prediction and 0 from the label. A single direction would give 3 or 0.
    assert values(measure(prediction, label, (1.0, 1.0)))["asd"] == pytest.approx((0 + 6 + 0) / 3)
    assert values(measure(label, prediction, (1.0, 1.0)))["asd"] == pytest.approx(2.0)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_scikit_image(seed):
    rng = np.random.default_rng(seed)
    label, prediction = rng.random((2, 14, 11)) > 0.8
    rows = values(measure(prediction.astype(np.uint8), label.astype(np.uint8), (1.0, 1.0)))
    edges = [find_boundaries(np.pad(mask, 1), mode="inner", connectivity=1)[1:-1, 1:-1] for mask in (prediction, label)]
    assert rows["hd"] == pytest.approx(hausdorff_distance(*edges), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_monai(seed):
    rng = np.random.default_rng(seed)
    label, prediction = ndimage.gaussian_filter(rng.random((2, 20, 18, 16)), (0, 2, 2, 2)) > 0.5
    spacing = (0.7, 1.3, 2.0)
    result = values(measure(prediction.astype(np.uint8), label.astype(np.uint8), spacing))
    masks = [torch.as_tensor(mask)[None, None] for mask in (prediction, label)]
    settings = {"include_background": True, "spacing": spacing}
    assert result["hd"] == pytest.approx(compute_hausdorff_distance(*masks, **settings).item(), rel=1e-5)
    assert result["hd95"] == pytest.approx(
        compute_hausdorff_distance(*masks, percentile=95, **settings).item(), rel=1e-5
    )
    assert result["asd"] == pytest.approx(
        compute_average_surface_distance(*masks, symmetric=True, **settings).item(), rel=1e-5
    )
    surface_dice = compute_surface_dice(*masks, class_thresholds=[2.0], **settings).item()
    assert result["nsd"] == pytest.approx(surface_dice, rel=1e-5)
    confusion = get_confusion_matrix(*(mask.float() for mask in masks), include_background=True).double()
    for name, monai_name in (
        ("dice", "f1 score"),
        ("iou", "threat score"),
        ("precision", "precision"),
        ("recall", "sensitivity"),
        ("miss_rate", "miss rate"),
        ("fall_out", "fall out"),
    ):
        assert result[name] == pytest.approx(compute_confusion_matrix_metric(monai_name, confusion).item(), rel=1e-9), (
            name
        )


@pytest.mark.parametrize("voxels", [1, 50, 10**6])
def test_confusion_matrix_is_counted_in_parts_without_ignored_voxels(voxels, monkeypatch):
    monkeypatch.setattr("cm_lightning.metrics.segmentation.CONFUSION_VOXELS", voxels)
    rng = np.random.default_rng(0)
    label, prediction = rng.integers(0, 3, (2, 7, 6, 5), dtype=np.uint8)
    label[rng.random(label.shape) < 0.2] = IGNORED_INDEX
    expected = [[((label == row) & (prediction == column)).sum() for column in range(3)] for row in range(3)]
    assert confusion_counts(torch.as_tensor(prediction), torch.as_tensor(label), 3).tolist() == expected


def test_surface_at_the_tolerance_is_within_it():
    label, prediction = np.zeros((30, 30), np.uint8), np.zeros((30, 30), np.uint8)
    label[5:20, 5:20], prediction[5:20, 6:21] = 1, 1
    rows = case_rows(torch.as_tensor(prediction), torch.as_tensor(label), ["a"], (0.3, 0.3), tolerance=0.3)
    assert values(pd.DataFrame(rows))["nsd"] == 1.0  # 0.3 is not a float32 number


@pytest.mark.parametrize("step", [0.1, 0.3, 0.7, 1 / 3])
def test_tolerance_of_each_class(step):
    label, prediction = np.zeros((30, 30), np.uint8), np.zeros((30, 30), np.uint8)
    for name, columns in ((1, slice(2, 12)), (2, slice(16, 26))):
        label[5:20, columns] = name
    prediction[:, 3:] = label[:, :-3]  # shifted by three pixels
    masks = (torch.as_tensor(prediction), torch.as_tensor(label), ["a", "b"], (step, step))
    rows = pd.DataFrame(case_rows(*masks, tolerance={"a": 3 * step, "b": 2.9 * step}))
    nsd = rows[rows["metric"] == "nsd"].set_index("class")
    assert nsd["tolerance"].to_dict() == {"a": 3 * step, "b": 2.9 * step}
    assert nsd["value"]["a"] == 1
    assert nsd["value"]["b"] < 1
    assert set(pd.DataFrame(case_rows(*masks, tolerance={"a": 1.0}))["tolerance"]) == {1.0, 2.0}
    with pytest.raises(ValueError, match="nsd_tolerance names the class 'c'; expected some of a, b"):
        case_rows(*masks, tolerance={"c": 1.0})
    with pytest.raises(ValueError, match="nsd_tolerance of a is -1; expected a distance of 0 or more"):
        case_rows(*masks, tolerance=-1.0)


def test_numbers_of_voxels_and_the_summary_file():
    label, prediction = np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint8)
    label[1:3, 1:4], prediction[1:3, 2:5] = 1, 1
    rows = pd.concat(
        [
            measure(prediction, label, (1.0, 1.0), ("a", "b"), case="1", patient="p"),
            measure(np.zeros_like(label), label, (1.0, 1.0), ("a", "b"), case="2", patient="q"),
        ]
    )
    assert rows[VOXELS].iloc[0].tolist() == [4, 2, 2, 12, 6, 6]
    summary = json.loads(json.dumps(nested_summary(rows), allow_nan=False))
    first, second = summary["metric_per_case"]
    assert (first["case"], first["patient"]) == ("1", "p")
    assert {name: first["metrics"]["a"][name] for name in ("TP", "FP", "FN", "TN", "n_pred", "n_ref")} == {
        "TP": 4,
        "FP": 2,
        "FN": 2,
        "TN": 12,
        "n_pred": 6,
        "n_ref": 6,
    }
    assert first["metrics"]["a"]["Dice"] == pytest.approx(8 / 12)
    assert second["metrics"]["a"]["hd"] is None
    assert second["metrics"]["b"]["Dice"] is None
    assert summary["mean"]["a"]["Dice"] == summary["foreground_mean"]["Dice"] == pytest.approx(4 / 12)
    assert (summary["mean"]["a"]["FN"], summary["mean"]["b"]["TN"]) == (8, 40)


def test_a_perfect_prediction_is_better_in_every_metric():
    label, shifted = np.zeros((12, 12), np.uint8), np.zeros((12, 12), np.uint8)
    label[2:6, 2:6], shifted[5:8, 4:10], shifted[10, 10] = 1, 1, 1
    perfect, worse = (values(measure(prediction, label, (1.0, 1.0))) for prediction in (label, shifted))
    for name, value in worse.items():
        assert value != perfect[name]
        assert (perfect[name] > value) == METRICS[name].higher_is_better, name
    assert not any(metric.higher_is_better for metric in METRICS.values() if metric.needs_probabilities)


def test_tables_have_the_order_of_the_classes():
    label = np.zeros((6, 6), np.uint8)
    label[1:3], label[4:] = 1, 2
    rows = measure(label, label, (1.0, 1.0), ("vessel", "nerve"))
    assert list(dict.fromkeys(summarise(rows)["class"])) == ["vessel", "nerve", "mean"]
    summary = nested_summary(rows)
    assert list(summary["mean"]) == list(summary["metric_per_case"][0]["metrics"]) == ["vessel", "nerve"]


def test_directions_percentiles_and_tolerance_by_hand():
    label, prediction = np.zeros((1, 40), np.uint8), np.zeros((1, 40), np.uint8)
    label[0, 10], prediction[0, [10, 13, 30]] = 1, 1
    result = values(measure(prediction, label, (1.0, 0.5)))
    # Distances are 0, 1.5 and 10 mm from the prediction and 0 from the label. The 95th percentile is 9.15 mm.
    assert result["hd"] == pytest.approx(10)
    assert result["hd95"] == pytest.approx(1.5 + 0.9 * 8.5)
    assert result["asd"] == pytest.approx(11.5 / 4)
    assert result["nsd"] == pytest.approx(3 / 4)  # three of four are within 2 mm


def test_islands_volume_and_cross_section_by_hand():
    label, prediction = np.zeros((6, 6, 3), np.uint8), np.zeros((6, 6, 3), np.uint8)
    label[1:3, 1:3, :2] = 1  # 4 pixels in two frames
    prediction[1:3, 1:3, 0] = 1
    prediction[3, 3, 1] = 1  # shares a corner with the others
    prediction[5, 0, 2] = prediction[0, 5, 2] = 1  # two islands, in a third frame
    result = values(measure(prediction, label, (2.0, 0.5, 9.0)))
    assert result["islands"] == 2
    assert result["volume_error"] == pytest.approx(1 / 8)
    assert result["csa_error"] == pytest.approx((0 + 3 + 2) / 3)  # pixels of 1 mm^2
    # If the label has two components, the second one is not an island.
    parts = np.zeros((1, 9), np.uint8)
    parts[0, [1, 7]] = 1
    assert values(measure(parts, parts, (1, 1)))["islands"] == 0
    single = parts.copy()
    single[0, 7] = 0
    assert values(measure(single, parts, (1, 1)))["islands"] == 0


def test_counts_are_exact_beyond_float32():
    # 3 false positives in 2^24 + 3 voxels are lost in float32.
    prediction, label = torch.zeros(1, 2**24 + 3, dtype=torch.uint8), torch.zeros(1, 2**24 + 3, dtype=torch.uint8)
    label[0, 0], prediction[0, :4] = 1, 1
    result = values(measure(prediction, label, (1.0, 1.0)))
    assert result["fall_out"] == 3 / (2**24 + 2)
    assert result["precision"] == 1 / 4


def test_empty_masks_follow_the_policy():
    empty, full = np.zeros((3, 4), np.uint8), np.zeros((3, 4), np.uint8)
    full[1, 1:3] = 1
    lost = measure(empty, full, (1.0, 2.0), case="lost")
    invented = measure(full, empty, (1.0, 2.0), case="invented")
    absent = measure(empty, empty, (1.0, 2.0), case="absent")
    detected = measure(full, full, (1.0, 2.0), case="detected")
    rows = pd.concat([lost, invented, absent, detected])
    diagonal = math.hypot(3, 8)

    worst = apply_empty_policy(rows, "worst")
    assert set(worst["case"]) == {"lost", "invented", "detected"}
    for case in ("lost", "invented"):
        result = values(worst[worst["case"] == case])
        assert result["hd"] == result["hd95"] == result["asd"] == pytest.approx(diagonal)
        assert result["dice"] == result["iou"] == result["precision"] == result["recall"] == result["nsd"] == 0
        assert result["miss_rate"] == result["fall_out"] == 1
        # Metrics without a worst value are not scored.
        assert {"islands", "volume_error", "csa_error"}.isdisjoint(result)
    assert worst["value"].notna().all()

    assert set(apply_empty_policy(rows, "detected")["case"]) == {"detected"}
    assert detection_rate(rows)["a"] == pytest.approx(0.5)


def test_missing_or_inventing_a_class_never_improves_a_mean():
    """A poor prediction is replaced by an empty one, or a class that is absent is predicted."""
    label, empty = np.zeros((6, 6), np.uint8), np.zeros((6, 6), np.uint8)
    label[1:3, 1:3] = 1
    poor = np.ones_like(label)
    poor[::2, ::3] = 0  # fall-out, islands, and errors of volume and area are large
    good = measure(label, label, (1.0, 1.0), case="1", patient="1")

    def means(prediction, target):
        rows = pd.concat([good, measure(prediction, target, (1.0, 1.0), case="2", patient="2")])
        return summarise(rows).set_index(["class", "metric"]).loc["mean"]

    kept, lost, absent, invented = means(poor, label), means(empty, label), means(empty, empty), means(poor, empty)
    for before, after in ((kept, lost), (absent, invented)):
        for name in kept.index:
            if name in CONDITIONAL:
                assert (after["patients"][name], after["mean"][name]) == (1, good_value(good, name)), name
            elif METRICS[name].higher_is_better:
                assert after["mean"][name] <= before["mean"][name], name
            else:
                assert after["mean"][name] >= before["mean"][name], name
    assert CONDITIONAL == ["islands", "volume_error", "csa_error"]


def good_value(rows, metric):
    return rows.set_index("metric")["value"][metric]


def test_summary_averages_cases_within_patients_first():
    label = np.ones((2, 2), np.uint8)
    half = np.array([[1, 1], [0, 0]], np.uint8)
    rows = pd.concat(
        [
            measure(label, label, (1, 1), case="1", patient="a"),
            measure(label, label, (1, 1), case="2", patient="a"),
            measure(half, label, (1, 1), case="3", patient="b"),
        ]
    )
    recall = summarise(rows).set_index(["class", "metric"]).loc[("a", "recall")]
    assert recall["mean"] == pytest.approx(0.75)  # not 5 / 6
    assert recall["sd_patients"] == pytest.approx(np.std([1.0, 0.5], ddof=1))
    assert (recall["patients"], recall["folds"], recall["seeds"], recall["failures"]) == (2, 1, 1, 0)


def test_dice_of_absent_classes_is_nan():
    label, prediction = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 0])
    dice = dice_per_class(prediction, label, 3)
    assert dice[0] == pytest.approx(2 / 3)
    assert math.isnan(dice[1])


def test_different_shapes_raise_an_error():
    with pytest.raises(ValueError, match="expected equal shapes"):
        measure(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), (1, 1))
