"""Images that are there twice, classes that are in no label, and stored maps and folds of another state."""

import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data import UltrasoundDataModule
from cm_lightning.io import write_meta_image

CLASSES = {"nerve": 1, "vessel": 2}


@pytest.fixture
def frames(tmp_path, rng):
    """Write frames of six patients with labels of both classes."""
    for folder in ("images", "masks"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for number in range(6):
        label = np.zeros((24, 20), np.uint8)
        label[4:9, 3:8], label[12:20, 9:16] = 1, 2
        Image.fromarray(rng.integers(1, 255, (24, 20), np.uint8)).save(tmp_path / "set" / "images" / f"p{number}.png")
        Image.fromarray(label).save(tmp_path / "set" / "masks" / f"p{number}.png")
    return tmp_path


def module(folder: Path, **options):
    settings = {"spatial_dims": 2, "spatial_size": [16, 16], "layout": "folder", "patient_pattern": r"(p\d)"}
    settings |= {"cache_dir": folder / "cache", "confidence_mode": "none", **options}
    return UltrasoundDataModule(folder / "set", CLASSES, **settings)


def test_image_under_two_names_is_named(frames):
    images = frames / "set" / "images"
    (images / "p5.png").write_bytes((images / "p1.png").read_bytes())
    with pytest.warns(UserWarning, match=r"p1.png and .*p5.png contain the same image, of different patients"):
        module(frames).prepare_data()


def test_labels_that_cannot_teach(frames):
    masks = sorted((frames / "set" / "masks").iterdir())
    for path in masks:
        label = np.asarray(Image.open(path))
        Image.fromarray(np.where(label == 2, 0, label).astype(np.uint8)).save(path)
    with pytest.warns(UserWarning, match=r"vessel \(data.classes\) is in none of the 6 labels"):
        module(frames).prepare_data()
    for path in masks:
        Image.fromarray(np.zeros((24, 20), np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"All 6 labels are empty, such as .*png; expected labels that contain nerve"):
        module(frames).prepare_data()


@pytest.mark.parametrize("name", [b"p1\xff_x", b"p1\n_x", b"p1\x1b[31m_x"])
def test_names_that_no_table_can_contain_are_refused(frames, name):
    for folder in ("images", "masks"):
        file = next((frames / "set" / folder).iterdir())
        file.rename(file.with_name(os.fsdecode(name) + file.suffix))
    with pytest.raises(ValueError, match="contains control characters, or is not UTF-8") as error:
        module(frames).prepare_data()
    assert str(error.value).isprintable()


def test_labels_without_image_are_named(frames):
    label = next((frames / "set" / "masks").iterdir())
    shutil.copy(label, label.with_name(f"p9_other{label.suffix}"))
    with pytest.warns(UserWarning, match=r"masks/p9_other\.png belongs to no image, and is not used"):
        module(frames).prepare_data()


def test_patients_may_be_called_na_but_not_nothing(frames):
    table = frames / "patients.csv"
    names = sorted(path.stem for path in (frames / "set" / "images").iterdir())
    table.write_text(
        "case,patient\n"
        + "".join(f"{name},{patient}\n" for name, patient in zip(names, ["NA", "nan", "null", *names], strict=False))
    )
    cases = module(frames, patient_pattern=None, patient_table=table).cases
    assert {"NA", "nan", "null"} <= {case.patient for case in cases}
    table.write_text(table.read_text().replace("NA\n", "\n"))
    with pytest.raises(ValueError, match=f"names no patient of the case {names[0]}"):
        module(frames, patient_pattern=None, patient_table=table).prepare_data()


def test_patient_table_with_a_case_twice(frames):
    rows = ["case,patient", *(f"p{number},{number}" for number in range(6)), "p3,5"]
    (frames / "patients.csv").write_text("\n".join(rows))
    with pytest.raises(ValueError, match=r"patients.csv lists the case p3 several times"):
        module(frames, patient_pattern=None, patient_table=frames / "patients.csv").prepare_data()


def damage(path, kind):
    data = bytearray(path.read_bytes())
    match kind:
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "flipped":
            data[len(data) // 2] ^= 4
            path.write_bytes(data)
        case "other shape":
            np.save(path, np.zeros((3, 4), np.uint16))
        case "float":
            np.save(path, np.full((24, 20), np.nan, np.float32))
        case "text":
            path.write_text("not a map")


@pytest.mark.parametrize("kind", ["cut", "flipped", "other shape", "float", "text"])
def test_damaged_maps_are_computed_again(frames, kind):
    first = module(frames, confidence_mode="native")
    first.prepare_data()
    paths = sorted((frames / "cache" / "confidence").iterdir())
    expected = [path.read_bytes() for path in paths]
    assert len(paths) == 6
    damage(paths[2], kind)
    second = module(frames, confidence_mode="native")
    with pytest.warns(UserWarning, match=r"confidence map .* is damaged; it is computed again"):
        second.prepare_data()
    assert second.solved_frames == 1
    assert [path.read_bytes() for path in sorted((frames / "cache" / "confidence").iterdir())] == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        module(frames, confidence_mode="native").prepare_data()


def test_scans_with_equal_headers_have_their_own_maps(tmp_path, rng):
    header = (
        "ObjectType = Image\nNDims = 2\nDimSize = 20 24\nElementSpacing = 1 1\nElementType = MET_UCHAR\n"
        "ElementDataFile = scan.raw\n"
    )
    cache = module(tmp_path, confidence_mode="native").maps.cache
    keys = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scan.mhd").write_text(header)
        (tmp_path / name / "scan.raw").write_bytes(rng.integers(0, 255, 480, np.uint8).tobytes())
        keys.add(cache.path(tmp_path / name / "scan.mhd"))
    assert len(keys) == 2


def test_fixed_scale_of_volumes_of_a_wider_type(tmp_path, rng):
    image = rng.integers(0, 255, (20, 24), dtype=np.uint8)
    maps = []
    for dtype in (np.uint8, np.int16, np.float32):
        path = tmp_path / f"{np.dtype(dtype)}.mha"
        write_meta_image(path, image.astype(dtype), (1.0, 1.0))
        data = module(tmp_path, confidence_mode="native", solver=ConfidenceMapSolver(normalise="fixed"))
        data = module(
            tmp_path,
            confidence_mode="native",
            solver=ConfidenceMapSolver(normalise="fixed"),
            predict_path=path,
            axes="lateral depth",
        )
        data.trainer = type("Trainer", (), {"state": type("State", (), {"fn": "predict"}), "training": False})()
        data.prepare_data()
        data.setup("predict")
        maps.append(data._predict[0]["confidence"].numpy())
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-4)
    np.testing.assert_allclose(maps[2], maps[0], atol=1e-4)


def test_folds_of_another_state_of_the_folder_are_noticed(frames):
    module(frames).setup("fit")
    (file,) = (frames / "cache" / "splits").iterdir()
    table = frames / "patients.csv"
    table.write_text("\n".join(["case,patient", *(f"p{number},p{number}" for number in range(4)), "p4,p5", "p5,p4"]))
    with pytest.raises(ValueError, match=r"was created when the case p4 belonged to the patient 'p4'"):
        module(frames, patient_pattern=None, patient_table=table, split_file=file).setup("fit")
    for content, message in (("[1, 2]", "contains no folds of this package"), ("{", "cannot be read as JSON")):
        (frames / "folds.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            module(frames, split_file=frames / "folds.json").setup("fit")
    (frames / "folds.json").write_text(json.dumps([{"train": ["p0"], "val": ["p1"]}]))  # as in nnU-Net
    with pytest.raises(ValueError, match="contains no folds of this package"):
        module(frames, split_file=frames / "folds.json").setup("fit")
