"""Classes: merged values, names and values of nnU-Net, rounding, and defaults that depend on the files."""

import json

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.classes import check_classes, resolve_classes, whole_numbers, written_values
from cm_lightning.data.ignored import IGNORED_INDEX
from cm_lightning.data.layouts import default_axes
from cm_lightning.data.patches import PatchCutter
from cm_lightning.errors import InputError
from cm_lightning.main import main
from tests.conftest import CONFIGS


@pytest.fixture
def nnunet(tmp_path, rng):
    """Write pictures of four patients, whose labels contain the values 1, 2, 3, and 4 for pixels to ignore."""
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    label = np.zeros((40, 48), np.uint8)
    label[5:15, 5:15], label[20:30, 5:15], label[20:30, 30:40], label[:, 44:] = 1, 2, 3, 4
    for number in range(4):
        picture = Image.fromarray(rng.integers(20, 250, (40, 48), np.uint8))
        picture.save(tmp_path / "imagesTr" / f"p{number}_0000.png")
        Image.fromarray(label).save(tmp_path / "labelsTr" / f"p{number}.png")
    labels = {"background": 0, "nerve": 1, "vessel": [2, 3], "ignore": 4}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".png"}))
    return tmp_path


def module(root, **options):
    settings = {"layout": "nnunet", "spatial_size": [32, 32], "patient_pattern": "(p.)", "confidence_mode": "none"}
    return UltrasoundDataModule(root, **{**settings, "cache_dir": root / "cache", **options})


def test_classes_axes_and_dimensions_come_from_the_data_set(nnunet):
    data = module(nnunet)
    assert (data.classes, data.axes.text, data.spatial_dims) == ({"nerve": 1, "vessel": 2}, "depth lateral", 2)
    label = data._reader.read(data.cases[0]).arrays.label
    assert label[25, 10] == label[25, 35] == 2  # both values of the vessel
    assert label[10, 10] == 1
    assert (label[:, 44:] == IGNORED_INDEX).all()
    assert np.unique(label).tolist() == [0, 1, 2, IGNORED_INDEX]


def test_merged_values_of_a_configuration(nnunet):
    data = module(nnunet, classes={"ignore": 4, "all": [3, 1, 2]})
    assert np.unique(data._reader.read(data.cases[0]).arrays.label).tolist() == [0, 1, IGNORED_INDEX]
    assert data.classes == {"all": 3}
    with pytest.raises(InputError, match=r"unknown values \[3, 4\]; .* 1 for nerve, 2 for vessel .*vessel: \[2"):
        module(nnunet, classes={"nerve": 1, "vessel": 2})._reader.read(data.cases[0])


def test_patches_are_centred_on_classes_not_on_pixels_to_ignore():
    label = torch.zeros(1, 1, 40, 40, dtype=torch.uint8)
    label[..., :20], label[..., 30, 30] = IGNORED_INDEX, 1
    case = {"image": torch.rand(1, 1, 40, 40), "label": label, "spacing": torch.ones(1, 2), "case": "a", "patient": "p"}
    for patch in PatchCutter((8, 8), 4, foreground=1.0)(case):
        assert (patch["label"] == 1).sum() == 1


def test_a_network_is_trained_and_tested_with_pixels_to_ignore(nnunet, tmp_path, no_pictures):
    options = {
        "data.root": nnunet,
        "data.layout": "nnunet",
        "data.classes": "{nerve: 1, ignore: 4, vessel: [2, 3]}",
        "data.spatial_size": "[32,32]",
        "data.patient_pattern": "(p.)",
        "data.cache_dir": tmp_path / "cache",
        "data.n_folds": 2,
        "model.network_options.channels": "[4,8]",
        "model.network_options.strides": "[2]",
        "output_dir": tmp_path / "outputs",
        "trainer.accelerator": "cpu",
        "trainer.max_epochs": 1,
        "trainer.enable_progress_bar": "false",
        "trainer.enable_model_summary": "false",
        "wandb.mode": "disabled",
    }
    arguments = [f"--config={CONFIGS / 'nerve_2ch.yaml'}", *(f"--{key}={value}" for key, value in options.items())]
    main(["fit", *arguments])
    main(["test", *arguments, "--ckpt_path=last"])
    (path,) = (tmp_path / "outputs").rglob("test_metrics.csv")
    assert set(pd.read_csv(path)["class"]) == {"nerve", "vessel"}
    (path,) = (tmp_path / "outputs").rglob("test_calibration.csv")
    counts = pd.read_csv(path).groupby(["case", "class"])["count"].sum()
    assert set(counts) == {40 * 44}  # of 40 x 48 pixels


def test_missing_classes_and_sizes_are_errors_with_an_example(nnunet):
    with pytest.raises(InputError, match=r"--data\.spatial_size \[32, 48\] for images such as p0_0000\.png of 40 x 48"):
        module(nnunet, spatial_size=None)
    (nnunet / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"data\.classes is not set, .*--data\.classes '\{nerve: 1, vessel: \["):
        module(nnunet)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"background": 0, "a": 1, "b": 2}, {"a": 1, "b": 2}),
        ({"0": "background", "1": "a", "2": "b"}, {"a": 1, "b": 2}),  # Medical Segmentation Decathlon
        ({"background": 0, "whole": [1, 2], "core": [2]}, "describes regions that share values"),
        ({"background": 0, "a": 1.5}, "expected whole numbers"),
        ({"background": 0, "a": 1, "ignore": 2}, {"a": 1, "ignore": 2}),
        ({"background": 0}, "data.classes is not set"),
        ({"background": 0, "ignore": 1}, "data.classes is not set"),
        ([1, 2], "data.classes is not set"),
    ],
)
def test_descriptions_of_nnunet(labels, expected, tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    if isinstance(expected, dict):
        assert resolve_classes(None, tmp_path, "nnunet") == expected
        assert resolve_classes({"c": 3}, tmp_path, "nnunet") == {"c": 3}
    else:
        with pytest.raises(InputError, match=expected):
            resolve_classes(None, tmp_path, "nnunet")
    with pytest.raises(InputError, match=r"data\.classes is not set"):
        resolve_classes(None, tmp_path, "folder")


@pytest.mark.parametrize(
    "classes", [{}, {"a": []}, {"a": [1, 1]}, {"a": 1, "b": [2, 1]}, {"a": [0, 1]}, {"mean": 1}, {"ignore": 1}]
)
def test_classes_without_values_of_their_own_are_refused(classes):
    with pytest.raises(InputError, match=r"data\.classes"):
        check_classes(classes)


def test_rounded_labels(tmp_path):
    values = whole_numbers(np.array([0, 1.00000006, 1.9999, 300], np.float32), tmp_path)
    assert (values.tolist(), values.dtype) == ([0, 1, 2, 300], np.int32)
    for value in (0.5, np.nan, np.inf, 1e20):
        with pytest.raises(InputError, match="contains the value"):
            whole_numbers(np.array([0, value]), tmp_path)
    assert written_values({"a": 3, "b": [5, 4]}) == {"a": 3, "b": 5}


def test_default_axes_depend_on_the_files(tmp_path, nnunet):
    assert default_axes(tmp_path / "missing", "nnunet") == "lateral depth elevation"
    assert default_axes(tmp_path / "missing", "folder") == "depth lateral"
    assert default_axes(nnunet, "nnunet") == default_axes(nnunet, "nnunet", 2) == "depth lateral"
    volumes = tmp_path / "volumes"
    for folder in ("images", "labels"):
        (volumes / folder).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.uint8), np.eye(4)), volumes / folder / "a.nii")
    assert default_axes(volumes, "folder", 3) == "lateral depth elevation"
    assert default_axes(volumes, "folder", 2) == "depth lateral"
