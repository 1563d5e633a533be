"""Detection of layouts, and files that belong to no case."""

import re

import pytest
from PIL import Image

from cm_lightning.data.layouts import find_cases
from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.inspection.detection import detect_layout, orphans


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/{}.png", "masks/{}.png"),
        ("images/{}.png", "masks/{}_mask.png"),
        ("images/{}.bmp", "labels/{}.png"),
        ("{}.png", "{}_mask.png"),
    ],
)
def test_folders_of_images_and_labels(image, label, write_frames, tmp_path):
    root = write_frames(tmp_path, image, label, count=3)
    assert detect_layout(root) == "folder"
    cases = find_cases(root, "folder")
    assert [case.id for case in cases] == ["a0", "a1", "a2"]
    assert all(case.label == root / label.format(case.id) for case in cases)
    assert orphans(root, "folder", cases) == []


def test_other_layouts(muscle_set, thyroid_set, nnunet_set):
    assert detect_layout(muscle_set) == "leg3d"
    assert detect_layout(thyroid_set) == "segthy"
    assert detect_layout(nnunet_set) == "nnunet"


@pytest.mark.parametrize(("image", "label"), [("images/{}.png", "labels/{}.png"), ("{}.png", "{}_mask.png")])
def test_images_and_labels_without_partner(image, label, write_frames, tmp_path):
    root = write_frames(tmp_path, image, label, count=3)
    (root / image.format("a0")).unlink()
    (root / label.format("a1")).unlink()
    cases = find_cases(root, "folder")
    assert [(case.id, case.label.is_file()) for case in cases] == [("a1", False), ("a2", True)]
    (problem,) = orphans(root, "folder", cases)
    assert problem.text == f"The label {root / label.format('a0')} belongs to no image; it is not used."
    assert not problem.is_fatal


def test_folders_without_labelled_images(write_frames, tmp_path):
    with pytest.raises(MissingInputError, match=r"The folder .*nowhere does not exist"):
        detect_layout(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no labelled images in .*empty: it contains nothing\. Expected one of"):
        detect_layout(tmp_path / "empty")
    (tmp_path / "other" / "frames").mkdir(parents=True)
    with pytest.raises(InputError, match=r"no labelled images in .*other: it contains frames\. Expected one of"):
        detect_layout(tmp_path / "other")
    write_frames(tmp_path / "outer" / "inner", "images/{}.png", "masks/{}.png")
    with pytest.raises(InputError, match="inner is a data set of the layout folder: inspect it instead"):
        detect_layout(tmp_path / "outer")
    for path in (tmp_path / "outer" / "inner" / "masks").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"its images \(layout folder\) have no labels"):
        detect_layout(tmp_path / "outer" / "inner")


def test_invalid_descriptions_and_channels_of_nnunet(nnunet_set):
    channel = nnunet_set / "imagesTr" / "a0_0001.png"
    Image.new("L", (4, 4)).save(channel)
    with pytest.raises(InputError, match=re.escape(f"{channel} is a further channel of a0_0000; expected images with")):
        find_cases(nnunet_set, "nnunet")
    channel.unlink()
    (nnunet_set / "dataset.json").write_text("{labels:")
    with pytest.raises(InputError, match=r"dataset.json cannot be read as JSON: "):
        find_cases(nnunet_set, "nnunet")
