"""Patient-wise folds."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm_lightning.data.cases import Case
from cm_lightning.data.splits import Fold, load_or_make_folds, make_folds


def cases(number: int, subsets: list[str | None] | None = None, each: int = 2) -> list[Case]:
    return [
        Case(f"p{i:02d}_{k}", f"p{i:02d}", Path("image"), Path("label"), subsets[i] if subsets else None)
        for i in range(number)
        for k in range(each)
    ]


def test_study_split_is_11_2_3_with_disjoint_test_sets():
    folds = make_folds(cases(16), "study")
    assert [(len(f.train), len(f.val), len(f.test)) for f in folds] == [(11, 2, 3)] * 3
    assert len({patient for fold in folds for patient in fold.test}) == 9


@given(number=st.integers(5, 40), n_folds=st.integers(2, 5), seed=st.integers(0, 100))
def test_kfold_tests_every_patient_once(number, n_folds, seed):
    folds = make_folds(cases(number), "kfold", n_folds, seed)
    assert sorted(patient for fold in folds for patient in fold.test) == [f"p{i:02d}" for i in range(number)]
    for fold in folds:
        assert sorted(fold.train + fold.val + fold.test) == [f"p{i:02d}" for i in range(number)]
        assert fold.val


def test_folds_are_stratified_by_official_sets():
    subsets = ["train"] * 8 + ["test"] * 4
    for fold in make_folds(cases(12, subsets), "kfold", 4):
        official = [subsets[int(patient[1:])] for patient in fold.test]
        assert official.count("train") == 2
        assert official.count("test") == 1
    (fold,) = make_folds(cases(12, subsets), "official")
    assert fold.test == [f"p{i:02d}" for i in range(8, 12)]
    assert len(fold.val) == 1
    assert len(fold.train) == 7


def test_invalid_splits_raise_errors():
    with pytest.raises(ValueError, match="needs at least 11 patients, but the data set has 10"):
        make_folds(cases(10), "study")
    with pytest.raises(ValueError, match="needs at least 5 patients, but the data set has 4"):
        make_folds(cases(4), "kfold", n_folds=5)
    with pytest.raises(ValueError, match=r"data\.n_folds must be at least 2"):
        make_folds(cases(4), "kfold", n_folds=1)
    with pytest.raises(ValueError, match="has no official training and test sets"):
        make_folds(cases(4), "official")
    mixed = cases(3, ["train", "train", "test"])
    mixed.append(Case("p00_x", "p00", Path("image"), Path("label"), "test"))
    with pytest.raises(ValueError, match="p00 is in the official sets"):
        make_folds(mixed, "official")
    with pytest.raises(ValueError, match=r"\['a'\] are in the train and the test set"):
        Fold(["a", "b"], ["c"], ["a"])


def test_folds_are_written_and_reused(tmp_path):
    path = tmp_path / "splits" / "study.json"
    folds = load_or_make_folds(path, cases(16), "study", seed=3)
    stored = json.loads(path.read_text())
    # Manual changes of the file must be used.
    stored["folds"][0]["val"], stored["folds"][0]["train"] = (
        stored["folds"][0]["train"][:2],
        stored["folds"][0]["train"][2:],
    )
    path.write_text(json.dumps(stored))
    loaded = load_or_make_folds(path, cases(16), "study", seed=3)
    assert loaded[0].val == folds[0].train[:2]
    assert loaded[1:] == folds[1:]
    with pytest.raises(ValueError, match="contain different patients"):
        load_or_make_folds(path, cases(17), "study", seed=3)
    with pytest.raises(ValueError, match="seed 3, expected 4"):
        load_or_make_folds(path, cases(16), "study", seed=4)
