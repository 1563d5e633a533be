"""Pairs of cases of different patients, and labels that must not be used."""

from types import SimpleNamespace

import pytest
import torch

from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.pairs import PairDataset


class Cases(list):
    """Substitute for a CacheDataset of prepared cases."""

    def __init__(self, patients):
        self.data = [SimpleNamespace(patient=patient) for patient in patients]
        super().__init__({"label": torch.full((1, 2), 1 + i), "case": i} for i in range(len(patients)))


def test_training_pairs_contain_a_labelled_case_and_two_patients():
    torch.manual_seed(0)
    patients = ["a", "a", "b", "c", "d"]
    pairs = PairDataset(Cases(patients), ["a"], draws=40)
    assert len(pairs) == 200
    all_pairs, not_swapped = [], 0
    for index in range(len(pairs)):
        pair = pairs[index]
        first, second = pair["case"], pair["partner"]["case"]
        assert index % 5 in (first, second)
        not_swapped += first == index % 5
        assert patients[first] != patients[second]
        assert pair["labelled"] or pair["partner"]["labelled"]
        for sample in (pair, pair["partner"]):
            assert bool(sample["labelled"]) == (patients[sample["case"]] == "a")
            assert bool(sample["label"].any()) == bool(sample["labelled"])  # unused labels are removed
        all_pairs.append((first, second))
    assert 60 < not_swapped < 140
    assert {(0, 2), (2, 0), (3, 1), (1, 4)} <= set(all_pairs)


def test_validation_pairs_are_fixed_and_keep_all_labels():
    pairs = PairDataset(Cases(["a", "a", "b", "c"]), ["a"])
    indices = [(pairs[i]["case"], pairs[i]["partner"]["case"]) for i in range(len(pairs))]
    assert indices == [(0, 2), (1, 2), (2, 3), (3, 0)]
    assert all(pairs[i]["label"].all() and pairs[i]["partner"]["label"].all() for i in range(4))


def test_one_patient_has_no_training_pairs():
    with pytest.raises(ValueError, match=r"pairs of different patients.*a patient other than a among 2 cases"):
        PairDataset(Cases(["a", "a"]), ["a"], draws=3)
    assert "partner" not in PairDataset(Cases(["a", "a"]), [])[0]


def make(root, cache, **options):
    classes = {"soleus": 100, "gastrocnemius_medialis": 150, "gastrocnemius_lateralis": 200}
    return UltrasoundDataModule(root, classes, spatial_size=[16, 16, 16], split="study", cache_dir=cache, **options)


def test_labelled_fraction_excludes_other_patients_from_supervised_training(muscle_set, tmp_path):
    data = make(muscle_set, tmp_path, labelled_fraction=0.34, confidence_mode="none")
    data.prepare_data()
    data.setup("fit")
    patients = {case.patient for case in data.cases_of("train")}
    assert len(data.labelled_patients) == round(0.34 * len(patients)) < len(patients)
    assert {batch["patient"][0] for batch in data.train_dataloader()} == set(data.labelled_patients)
    # The patients do not depend on the seed of the training.
    torch.manual_seed(1)
    assert make(muscle_set, tmp_path, labelled_fraction=0.34).labelled_patients == data.labelled_patients
    assert make(muscle_set, tmp_path).labelled_patients == sorted(patients)


def test_both_cases_of_a_pair_are_augmented_and_have_maps(muscle_set, tmp_path):
    data = make(muscle_set, tmp_path, confidence_mode="on_the_fly", batch_size=3)
    data.pairs_per_case = 2
    data.prepare_data()
    data.setup("fit")
    assert len(data.train_dataloader().dataset) == 2 * len(data.training_set)
    data.trainer = SimpleNamespace(training=True)
    batch = next(iter(data.train_dataloader()))
    processed = data.on_after_batch_transfer(batch, 0)
    for before, after in ((batch, processed), (batch["partner"], processed["partner"])):
        assert after["confidence"].shape == after["image"].shape == (3, 1, 16, 16, 16)
        assert not torch.equal(before["image"], after["image"])
        assert (after["confidence"] > 0).any()


def test_invalid_labelled_fractions_raise_errors(muscle_set, tmp_path):
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"data.labelled_fraction must be above 0 and at most 1, found {share}"):
            make(muscle_set, tmp_path, labelled_fraction=share)
