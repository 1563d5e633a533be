"""Pairs of different patients, and labels that may not be used."""

from types import SimpleNamespace

import pytest
import torch

from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.pairs import PairDataset


class Cases(list):
    """Prepared cases with what the pairs read of a CacheDataset."""

    def __init__(self, patients):
        self.data = [SimpleNamespace(patient=patient) for patient in patients]
        super().__init__({"label": torch.full((1, 2), 1 + i), "case": i} for i in range(len(patients)))


def test_every_case_comes_as_often_with_a_labelled_case_of_another_patient():
    torch.manual_seed(0)
    patients = ["a", "a", "b", "c", "d"]
    pairs = PairDataset(Cases(patients), ["a"], draws=40)
    assert len(pairs) == 200
    seen, first_is_own = [], 0
    for index in range(len(pairs)):
        pair = pairs[index]
        one, other = pair["case"], pair["partner"]["case"]
        assert index % 5 in (one, other)
        first_is_own += one == index % 5
        assert patients[one] != patients[other]
        assert pair["labelled"] or pair["partner"]["labelled"]
        for sample in (pair, pair["partner"]):
            assert bool(sample["labelled"]) == (patients[sample["case"]] == "a")
            assert bool(sample["label"].any()) == bool(sample["labelled"])  # what may not be used is not given away
        seen.append((one, other))
    assert 60 < first_is_own < 140
    assert {(0, 2), (2, 0), (3, 1), (1, 4)} <= set(seen)


def test_validation_pairs_are_fixed_and_keep_all_labels():
    pairs = PairDataset(Cases(["a", "a", "b", "c"]), ["a"])
    found = [(pairs[i]["case"], pairs[i]["partner"]["case"]) for i in range(len(pairs))]
    assert found == [(0, 2), (1, 2), (2, 3), (3, 0)]
    assert all(pairs[i]["label"].all() and pairs[i]["partner"]["label"].all() for i in range(4))


def test_one_patient_cannot_be_registered_but_validated():
    with pytest.raises(ValueError, match=r"pairs of different patients.*another patient than a in a set of 2"):
        PairDataset(Cases(["a", "a"]), ["a"], draws=3)
    assert "partner" not in PairDataset(Cases(["a", "a"]), [])[0]


def make(root, cache, **options):
    classes = {"soleus": 100, "gastrocnemius_medialis": 150, "gastrocnemius_lateralis": 200}
    return UltrasoundDataModule(root, classes, spatial_size=[16, 16, 16], split="study", cache_dir=cache, **options)


def test_labelled_fraction_leaves_the_other_patients_out_of_supervised_training(muscle_set, tmp_path):
    data = make(muscle_set, tmp_path, labelled_fraction=0.34, confidence_mode="none")
    data.prepare_data()
    data.setup("fit")
    patients = {case.patient for case in data.cases_of("train")}
    assert len(data.labelled_patients) == round(0.34 * len(patients)) < len(patients)
    assert {batch["patient"][0] for batch in data.train_dataloader()} == set(data.labelled_patients)
    # The same patients each time, whatever the training's seed.
    torch.manual_seed(1)
    assert make(muscle_set, tmp_path, labelled_fraction=0.34).labelled_patients == data.labelled_patients
    assert make(muscle_set, tmp_path).labelled_patients == sorted(patients)


def test_both_of_a_pair_are_augmented_and_get_maps(muscle_set, tmp_path):
    data = make(muscle_set, tmp_path, confidence_mode="on_the_fly", batch_size=3)
    data.pairs_per_case = 2
    data.prepare_data()
    data.setup("fit")
    assert len(data.train_dataloader().dataset) == 2 * len(data.training_set)
    data.trainer = SimpleNamespace(training=True)
    batch = next(iter(data.train_dataloader()))
    changed = data.on_after_batch_transfer(batch, 0)
    for before, after in ((batch, changed), (batch["partner"], changed["partner"])):
        assert after["confidence"].shape == after["image"].shape == (3, 1, 16, 16, 16)
        assert not torch.equal(before["image"], after["image"])
        assert (after["confidence"] > 0).any()


def test_refusals(muscle_set, tmp_path):
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=rf"data.labelled_fraction must lie in \(0, 1\], found {share}"):
            make(muscle_set, tmp_path, labelled_fraction=share)
