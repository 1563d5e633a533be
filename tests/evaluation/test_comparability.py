"""Reports compare only what is comparable, and say what their numbers cover."""

import numpy as np
import pandas as pd
import pytest

from cm_lightning.evaluation.alignment import common_keys
from cm_lightning.evaluation.comparison import (
    Comparison,
    compare_quantity,
    correct,
    over_seeds,
    participant_folds,
    seed_values,
)
from cm_lightning.evaluation.comparison_table import comparison_table
from cm_lightning.evaluation.conventions import convention_table
from cm_lightning.evaluation.loading import load_runs
from cm_lightning.evaluation.paired import compare_pair
from cm_lightning.evaluation.report import write_report
from cm_lightning.evaluation.results import Results
from cm_lightning.evaluation.tables import class_table, overview_table
from cm_lightning.main import main
from cm_lightning.metrics.segmentation import METRICS
from tests.conftest import blank_figures
from tests.evaluation.test_pooling import write_fold

PAIR = Comparison("new", "old")


def dice_rows(model, values, seed=0, folds=3, names="ab", cases=None):
    """Return Dice rows of a model, with the values of each participant for all classes."""
    return pd.DataFrame(
        [
            {"model": model, "seed": seed, "fold": index % folds, "patient": f"p{index}", "case": f"c{index}"}
            | {"class": name, "metric": "dice", "value": value, "unit": "mm", "grouping": "patient", "tolerance": 2.0}
            | {"pred_empty": False, "truth_empty": False, "diagonal": 10.0}
            for index, value in enumerate(values)
            if cases is None or index in cases
            for name in names
        ]
    )


def compared(rows, **settings):
    """Return the comparison of the new with the old model, and its table."""
    quantity = compare_quantity("dice", "DSC", seed_values(rows, "dice"), [PAIR], participant_folds(rows))
    (quantity,) = correct([quantity], **settings)
    return quantity.results[PAIR], comparison_table(quantity)


def test_models_are_aligned_to_common_cases_and_classes():
    dice = np.linspace(0.9, 0.95, 12)
    old = dice_rows("old", dice)
    old.loc[old["class"] == "b", "value"] -= 0.1  # a difficult class, which the new model lacks
    rows = pd.concat([old, dice_rows("new", dice, names="a", cases=range(6))])
    aligned = common_keys(rows)
    common = aligned.select(rows)
    assert (common["case"].nunique(), set(common["class"])) == (6, {"a"})
    assert [tuple(item) for item in aligned.left_out] == [("old", 0, 12, 6, ("b",))]
    result, _ = compared(common)
    assert (result.participants, result.difference, result.p) == (6, 0, 1)
    assert not common_keys(common).left_out
    with pytest.raises(ValueError, match=r"new \(seed 0\) has no case and class in common with old"):
        common_keys(pd.concat([old, dice_rows("new", dice, names="c")]))
    other = dice_rows("new", dice).assign(patient="x")
    with pytest.raises(ValueError, match="The case c0 belongs to the patients p0, x in different runs"):
        common_keys(pd.concat([old, other]))


def test_page_says_what_was_left_out_and_lists_the_conventions(tmp_path):
    label = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], np.uint8)
    plan = [["a1", "b1"], ["c1", "d1"]]
    for model, used in (("old", plan), ("new", plan[:1])):
        for fold, cases in enumerate(used):
            write_fold(tmp_path / "runs" / model, fold, dict.fromkeys(cases, label), plan=used)
    with blank_figures():
        main(["report", str(tmp_path / "runs"), "--output", str(tmp_path / "out"), "--margin", "{dice: 0.02, hd: 1}"])
    page = (tmp_path / "out" / "report.md").read_text()
    assert "| old | 0 | 2 | 4 | - |" in page
    assert "2 cases, 1 seed(s)" in page
    assert "muscle 2 mm; a distance that equals it" in page
    assert "within ± 0.02 (two one-sided tests" in page
    assert "within ± 1 (two one-sided tests" in page
    with pytest.raises(ValueError, match="margin names the quantity 'nsd'; expected some of dice"):
        write_report([tmp_path / "runs"], tmp_path / "out", margins={"nsd": 1.0})
    for path in (tmp_path / "runs" / "new").glob("fold*/test_metrics.csv"):
        pd.read_csv(path).assign(tolerance=3.0).to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"different tolerances of the surface Dice of muscle \(2 in old, 3 in new\)"):
        load_runs([tmp_path / "runs"])


def test_one_seed_is_conditional_on_its_networks():
    rng = np.random.default_rng(0)
    old = rng.uniform(0.7, 0.9, 12)
    rows = pd.concat([dice_rows("old", old), dice_rows("new", old + rng.normal(0.05, 0.02, 12))])
    result, table = compared(rows)
    assert (result.scope, result.seeds) == ("networks", 1)
    assert result.low < result.difference < result.high
    assert result.p == result.networks_p < 0.01
    assert [column for column in table.columns if column.startswith("p")] == [
        f"{name}, conditional on these trained networks" for name in ("p", "p, Holm")
    ]
    assert "another training may give another result" in table.note
    assert result.verdict == "different"
    assert "(12 pairs differ)" in table.rows[0][-1].text


def test_two_seeds_include_the_variation_between_runs():
    """Runs of the new model are alternately better and worse, by the same amount for all of their participants."""
    rng = np.random.default_rng(1)
    old = rng.uniform(0.7, 0.9, 60)
    tables = []
    for seed in range(3):
        shift = np.array([0.04, -0.03, 0.02])[(np.arange(60) + seed) % 3]
        tables += [dice_rows("old", old, seed), dice_rows("new", old + shift + rng.normal(0, 0.005, 60), seed)]
    rows = pd.concat(tables)
    result, table = compared(rows)
    assert (result.scope, result.seeds) == ("runs", 3)
    assert result.networks_p < 0.001  # networks as fixed
    assert result.p > 0.3
    means = over_seeds(seed_values(rows, "dice"))
    assert result.difference == pytest.approx((means["new"] - means["old"]).mean())  # as its interval
    assert result.low < 0 < result.high
    assert table.rows[0][table.columns.index("covers")].text == "participants, training runs"
    assert compared(rows, margins={"dice": 0.1})[0].verdict == "equivalent"
    assert compared(rows)[0].verdict == "undecided"
    # Runs cannot be paired if the models were tested with different folds.
    other = rows.assign(fold=np.where(rows["model"] == "new", (rows["fold"] + 1) % 3, rows["fold"]))
    other.loc[other["case"] == "c0", "fold"] = 1
    assert compared(other)[0].scope == "networks"


def test_invalid_pairs_raise_errors():
    table = pd.DataFrame({0: [0.1, 0.2, np.inf]})
    with pytest.raises(ValueError, match=r"A paired test needs a finite value .* found infinite values"):
        compare_pair(table, table)  # SciPy returns a p value for inf - inf
    with pytest.raises(ValueError, match="the same participants for both models; found 3 and 2 participants"):
        compare_pair(table, table[:2])
    with pytest.raises(ValueError, match="at least two participants with values for both models; found 1"):
        compare_pair(table[:2], pd.DataFrame({0: [0.1, np.nan]}))


def test_family_of_the_correction():
    rng = np.random.default_rng(2)
    old = rng.uniform(0.7, 0.9, 12)
    rows = pd.concat([dice_rows("old", old), *(dice_rows(name, old + rng.normal(0.02, 0.02, 12)) for name in "xy")])
    comparisons = [Comparison("x", "old"), Comparison("y", "old")]
    quantities = [
        compare_quantity(name, name, seed_values(rows, "dice"), comparisons, participant_folds(rows)) for name in "uvw"
    ]
    tables, page = (correct(quantities, family) for family in ("table", "page"))
    smallest = min(result.p for result in tables[0].results.values())
    assert min(result.holm_p for result in tables[2].results.values()) == pytest.approx(2 * smallest)
    assert min(result.holm_p for result in page[2].results.values()) == pytest.approx(6 * smallest)
    assert "the 2 comparisons of this table" in comparison_table(tables[0]).note
    assert "the 6 comparisons of all tables of this page" in comparison_table(page[0]).note


def test_participants_without_a_value_are_counted(tmp_path):
    """The class of one participant is missed: islands are not defined, and every table says so."""
    label = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], np.uint8)
    plan = [["a1", "b1"], ["c1", "d1"]]
    for model in ("old", "new"):
        for fold, cases in enumerate(plan):
            predictions = {case: np.zeros_like(label) if (model, case) == ("new", "c1") else label for case in cases}
            write_fold(tmp_path / model, fold, predictions, plan=plan)
    results = Results(load_runs([tmp_path]), [PAIR])
    for table, row in ((overview_table(results), 0), (class_table(results), 0)):
        cells = dict(zip(table.columns, table.rows[row], strict=True))
        assert cells["model"].text == "new"
        assert cells["islands"].text.endswith("(n 3)")
        assert "(n" not in cells["DSC"].text
    assert (
        dict(zip(overview_table(results).columns, overview_table(results).rows[0], strict=True))["participants"].text
        == "4"
    )
    table = comparison_table(results.quantities["islands"])
    assert table.rows[0][2].text == "3 (1 left out)"
    assert comparison_table(results.quantities["dice"]).rows[0][2].text == "4"
    assert {METRICS[name].title for name in ("hd", "hd95", "asd", "islands")} <= {
        row[0].text for row in convention_table(results).rows
    }
