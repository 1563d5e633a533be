"""Pooling of folds into one table, and errors for folds that do not form one complete cross-validation."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cm_lightning.evaluation.pooling import check_complete, pool_folds
from cm_lightning.metrics import case_rows
from cm_lightning.metrics.summary import summarise
from cm_lightning.runs import ExperimentFolder

LABEL = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], np.uint8)
HALF = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], np.uint8)
PLAN = [["a1", "a2"], ["b1"], ["c1"]]


def write_fold(experiment, fold, predictions, plan=PLAN, split="study"):
    """Write the test results of a fold with the given predictions by case."""
    folder = experiment / f"fold{fold}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for case, prediction in predictions.items():
        ids = {"case": case, "patient": case[0], "grouping": "patient", "unit": "mm"}
        rows += case_rows(torch.as_tensor(prediction), torch.as_tensor(LABEL), ["muscle"], (1.0, 1.0), **ids)
    pd.DataFrame(rows).assign(fold=fold).to_csv(folder / "test_metrics.csv", index=False)
    test_plan = {"split": split, "split_seed": 0, "fold": fold, "test_cases": plan}
    (folder / "test_plan.json").write_text(json.dumps(test_plan))


@pytest.fixture
def experiment(tmp_path):
    folder = tmp_path / "muscle_2ch"
    write_fold(folder, 0, {"a1": LABEL, "a2": HALF})
    write_fold(folder, 1, {"b1": LABEL})
    write_fold(folder, 2, {"c1": np.zeros_like(LABEL)})
    return folder


def test_pooled_table_contains_every_case_once(experiment):
    rows = pool_folds(ExperimentFolder(experiment))
    assert dict(rows.drop_duplicates("case")[["case", "fold"]].to_numpy().tolist()) == {
        "a1": 0,
        "a2": 0,
        "b1": 1,
        "c1": 2,
    }
    assert set(rows["model"]) == {"muscle_2ch"}


def test_means_are_over_patients_with_sds_over_patients_and_over_folds(experiment):
    table = summarise(pool_folds(ExperimentFolder(experiment))).set_index(["class", "metric"]).loc[("muscle", "recall")]
    # Patient a has a recall of 1 and 0.5, b of 1, and the class was missed in c.
    assert table["mean"] == pytest.approx((0.75 + 1 + 0) / 3)
    assert table["sd_patients"] == table["sd_folds"] == pytest.approx(np.std([0.75, 1, 0], ddof=1))
    assert (table["patients"], table["folds"], table["failures"]) == (3, 3, 1)
    detected = summarise(pool_folds(ExperimentFolder(experiment)), "detected").set_index(["class", "metric"])
    assert detected.loc[("muscle", "recall")]["mean"] == pytest.approx(0.875)


def test_one_failed_fold_explains_the_sd_of_the_study():
    """The result 0.57 +- 0.49 of the study (AttUNet) is the SD over folds with a Dice of 0.855, 0.855 and 0."""
    dice = {0: [0.835, 0.855, 0.875], 1: [0.845, 0.855, 0.865], 2: [0.0, 0.0, 0.0]}
    rows = pd.DataFrame(
        {"model": "attunet", "seed": 0, "fold": fold, "patient": f"{fold}{i}", "case": f"{fold}{i}", "class": "soleus"}
        | {"metric": "dice", "value": value, "pred_empty": value == 0, "truth_empty": False, "diagonal": 1.0}
        for fold, values in dice.items()
        for i, value in enumerate(values)
    )
    summary = summarise(rows).set_index("class").loc["soleus"]
    assert round(summary["mean"], 2) == 0.57
    assert round(summary["sd_folds"], 2) == 0.49
    assert summary["sd_patients"] == pytest.approx(np.std(list(dice.values()), ddof=1))
    assert summary["failures"] == 3
    detected = summarise(rows, "detected").set_index("class").loc["soleus"]
    assert detected["mean"] == pytest.approx(0.855)


def test_incomplete_or_inconsistent_folds_raise_errors(experiment, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no fold\*/test_metrics.csv in .*missing"):
        pool_folds(ExperimentFolder(tmp_path / "missing"))

    write_fold(experiment, 1, {"a1": LABEL})
    with pytest.raises(ValueError, match="cases a1 are in more than one fold"):
        pool_folds(ExperimentFolder(experiment))
    write_fold(experiment, 1, {"d1": LABEL})
    with pytest.raises(ValueError, match=r"Fold 1 .* missing: \['b1'\], not in the split: \['d1'\]"):
        pool_folds(ExperimentFolder(experiment))
    write_fold(experiment, 1, {"b1": LABEL}, plan=[["a1"], ["b1"], ["c1"]])
    with pytest.raises(ValueError, match="have different test cases"):
        pool_folds(ExperimentFolder(experiment))
    # A foreign plan with scans of one patient in two folds: one of its networks was trained on this patient.
    divided = tmp_path / "divided"
    for fold, cases in enumerate((["a1"], ["a2", "b1"])):
        write_fold(divided, fold, dict.fromkeys(cases, LABEL), plan=[["a1"], ["a2", "b1"]])
    with pytest.raises(ValueError, match=r"The patient a has cases in the folds 0, 1 of .*; expected all cases"):
        pool_folds(ExperimentFolder(divided))
    write_fold(experiment, 1, {"b1": LABEL})
    pool_folds(ExperimentFolder(experiment))

    (experiment / "fold2" / "test_metrics.csv").write_text("case,value\n")
    with pytest.raises(ValueError, match=r"fold2/test_metrics.csv lacks the columns .*class"):
        pool_folds(ExperimentFolder(experiment))
    (experiment / "fold2" / "test_metrics.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"Of the 3 folds of .*, fold 2 has not been tested"):
        pool_folds(ExperimentFolder(experiment))
    write_fold(experiment, 2, {"c1": LABEL})
    (experiment / "fold2" / "test_plan.json").unlink()
    with pytest.raises(FileNotFoundError, match="expected the test cases of all folds, a file that test writes"):
        pool_folds(ExperimentFolder(experiment))


def test_cut_tables_and_other_units_are_refused():
    keys = [(case, name, metric) for case in "ab" for name in "xy" for metric in ("dice", "hd")]
    table = pd.DataFrame(keys, columns=["case", "class", "metric"]).assign(postprocessing="none", unit="mm")
    check_complete({Path("f0"): table, Path("f1"): table})
    with pytest.raises(ValueError, match="f1 has 3 results of the case b, expected 4"):
        check_complete({Path("f0"): table, Path("f1"): table.iloc[:-1]})
    with pytest.raises(ValueError, match="f1 has distances in px, but f0 in mm"):
        check_complete({Path("f0"): table, Path("f1"): table.assign(unit="px")})
