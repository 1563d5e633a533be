"""Reading of repeated labels, and published values for real raters."""

import itertools

import numpy as np
import pytest
from PIL import Image

from cm_lightning.data.cases import Case
from cm_lightning.data.raters import read_rater_labels
from cm_lightning.io import Axes, write_meta_image
from cm_lightning.uncertainty.raters import agreement, pairwise_dice

CLASSES = {"soleus": 100, "medialis": 150}
AXES = Axes("lateral depth elevation")


def write(path, array):
    write_meta_image(path, array.astype(np.uint8), (0.5, 0.6, 0.7))


@pytest.fixture
def volume(tmp_path, rng):
    """Return a case with labels by two raters, and the label arrays by name."""
    write(tmp_path / "x1.mha", rng.integers(0, 255, (6, 5, 4)))
    labels = {}
    for name in ("ben", "anna_10", "anna_9"):
        labels[name] = rng.choice([0, 100, 150], (6, 5, 4))
        write(tmp_path / "ratersTr" / "a_x1" / f"{name}.mha", labels[name])
    (tmp_path / "ratersTr" / "a_x1" / "notes.txt").write_text("no label")
    return Case("a_x1", "a", tmp_path / "x1.mha"), labels


def test_labels_by_rater_and_repeat(tmp_path, volume):
    case, labels = volume
    rater_labels = read_rater_labels(tmp_path / "ratersTr", case, AXES, CLASSES)
    assert rater_labels.raters == ("anna", "anna", "ben")
    assert rater_labels.labels.shape == (3, 5, 6, 4)
    for label, name in zip(rater_labels.labels, ("anna_9", "anna_10", "ben"), strict=True):
        np.testing.assert_array_equal(label, np.searchsorted([0, 100, 150], labels[name]).transpose(1, 0, 2))
    by_rater = rater_labels.by_rater()
    assert [(rater, len(part)) for rater, part in by_rater.items()] == [("anna", 2), ("ben", 1)]
    np.testing.assert_array_equal(by_rater["ben"][0], rater_labels.labels[2])


def test_selected_frames_equal_those_of_all_labels(tmp_path, volume):
    case, _ = volume
    all_frames = read_rater_labels(tmp_path / "ratersTr", case, AXES, CLASSES).labels
    selected = read_rater_labels(tmp_path / "ratersTr", case, AXES, CLASSES, frames=[3, 1]).labels
    np.testing.assert_array_equal(selected, all_frames[..., [3, 1]])
    with pytest.raises(ValueError, match=r"x1.mha has 4 frames .* indices from 0 to 3, found \[4\]"):
        read_rater_labels(tmp_path / "ratersTr", case, AXES, CLASSES, frames=[4])


def test_custom_patterns(tmp_path, volume):
    case, _ = volume
    rater_labels = read_rater_labels(
        tmp_path / "ratersTr", case, AXES, CLASSES, pattern="(?P<rater>[a-z])(?P<repeat>.*)"
    )
    assert rater_labels.raters == ("a", "a", "b")
    with pytest.raises(ValueError, match=r"must have a group \(\?P<rater>"):
        read_rater_labels(tmp_path / "ratersTr", case, AXES, CLASSES, pattern="(.+)")


@pytest.mark.parametrize(
    ("name", "shape", "value", "pattern", "message"),
    [
        ("carl.mha", (6, 5, 3), 0, "(?P<rater>.+)", r"carl.mha has the shape \(6, 5, 3\); expected \(6, 5, 4\)"),
        ("carl.mha", (6, 5, 4), 7, "(?P<rater>.+)", r"carl.mha contains the unknown values \[7\]"),
        ("carl-2.mha", (6, 5, 4), 0, "(?P<rater>[a-z_0-9]+)", r"carl-2.mha does not match the rater pattern"),
        ("ben.nrrd", (6, 5, 4), 0, "(?P<rater>.+)", r"ben\.\w+ and .*ben\.\w+ are the same repeat of the rater 'ben'"),
    ],
)
def test_invalid_files_raise_errors(tmp_path, volume, name, shape, value, pattern, message):
    case, _ = volume
    write(tmp_path / "ratersTr" / "a_x1" / name, np.full(shape, value))
    with pytest.raises(ValueError, match=message):
        read_rater_labels(tmp_path / "ratersTr", case, AXES, CLASSES, pattern=pattern)


def test_missing_labels_raise_errors(tmp_path, volume):
    other = Case("b_x1", "b", volume[0].image)
    with pytest.raises(
        FileNotFoundError, match=r"no rater labels at .*b_x1: the folder does not exist. Expected files ratersTr"
    ):
        read_rater_labels(tmp_path / "ratersTr", other, AXES, CLASSES)
    (tmp_path / "ratersTr" / "b_x1").mkdir()
    with pytest.raises(FileNotFoundError, match="the folder contains no label"):
        read_rater_labels(tmp_path / "ratersTr", other, AXES, CLASSES)


def test_published_agreement_of_five_real_raters(real_data, tmp_path):
    """Five raters labelled 35 cells with two tools (Gurari et al. 2015), which are treated as repeats."""
    masks = real_data / "raters" / "masks"
    tools = {"Amira": 1, "ImageJ": 2}
    names = sorted(path.name for path in (masks / "Person1_Amira").iterdir())
    assert len(names) == 35
    overall, by_tool, intra, inter = [], [], [], []
    for name in names:
        case = Case(name.removesuffix(".png"), "", masks / "Person1_Amira" / name)
        folder = tmp_path / "ratersTr" / case.id
        folder.mkdir(parents=True)
        for (tool, repeat), person in itertools.product(tools.items(), range(1, 6)):
            (folder / f"Person{person}_{repeat}.png").symlink_to(masks / f"Person{person}_{tool}" / name)
        rater_labels = read_rater_labels(tmp_path / "ratersTr", case, Axes("depth lateral"), {"cell": 255})
        assert rater_labels.raters == tuple(f"Person{person}" for person in range(1, 6) for _ in tools)
        np.testing.assert_array_equal(*rater_labels.by_rater()["Person2"])
        dice = pairwise_dice(rater_labels.labels, 2)
        overall.append(dice[0][np.triu_indices(10, k=1)].mean())
        by_tool.append([agreement(dice[:, tool::2, tool::2], rater_labels.raters[::2]).inter[0] for tool in (0, 1)])
        within_and_between = agreement(dice, rater_labels.raters)
        intra.append(within_and_between.intra[0])
        inter.append(within_and_between.inter[0])
        # Compare with the published file.
        published = np.asarray(Image.open(masks / "Person3_ImageJ" / name)) > 0
        np.testing.assert_array_equal(rater_labels.by_rater()["Person3"][1], published)
    np.testing.assert_allclose(np.mean(by_tool, axis=0), [0.865, 0.849], atol=5e-4)
    assert np.mean(overall) == pytest.approx(0.859, abs=5e-4)
    assert np.mean(inter) == pytest.approx(0.856, abs=5e-4)
    assert np.mean(intra) > np.mean(inter)
