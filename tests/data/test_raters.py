"""Repeated labels are read as what their names say, and published facts come out of real ones."""

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
    """A volume with labels by two raters; the case and the labels in file order by name."""
    write(tmp_path / "x1.mha", rng.integers(0, 255, (6, 5, 4)))
    labels = {}
    for name in ("ben", "anna_10", "anna_9"):
        labels[name] = rng.choice([0, 100, 150], (6, 5, 4))
        write(tmp_path / "ratersTr" / "a_x1" / f"{name}.mha", labels[name])
    (tmp_path / "ratersTr" / "a_x1" / "notes.txt").write_text("no label")
    return Case("a_x1", "a", tmp_path / "x1.mha"), labels


def test_labels_by_rater_and_repeat(tmp_path, volume):
    case, labels = volume
    found = read_rater_labels(tmp_path / "ratersTr", case, AXES, CLASSES)
    assert found.raters == ("anna", "anna", "ben")
    assert found.labels.shape == (3, 5, 6, 4)
    for label, name in zip(found.labels, ("anna_9", "anna_10", "ben"), strict=True):
        np.testing.assert_array_equal(label, np.searchsorted([0, 100, 150], labels[name]).transpose(1, 0, 2))
    own = found.by_rater()
    assert [(rater, len(part)) for rater, part in own.items()] == [("anna", 2), ("ben", 1)]
    np.testing.assert_array_equal(own["ben"][0], found.labels[2])


def test_some_frames_are_those_of_the_whole(tmp_path, volume):
    case, _ = volume
    whole = read_rater_labels(tmp_path / "ratersTr", case, AXES, CLASSES).labels
    part = read_rater_labels(tmp_path / "ratersTr", case, AXES, CLASSES, frames=[3, 1]).labels
    np.testing.assert_array_equal(part, whole[..., [3, 1]])
    with pytest.raises(ValueError, match=r"x1.mha has 4 frames along elevation; found the frames \[4\]"):
        read_rater_labels(tmp_path / "ratersTr", case, AXES, CLASSES, frames=[4])


def test_a_pattern_of_ones_own(tmp_path, volume):
    case, _ = volume
    found = read_rater_labels(tmp_path / "ratersTr", case, AXES, CLASSES, pattern="(?P<rater>[a-z])(?P<repeat>.*)")
    assert found.raters == ("a", "a", "b")
    with pytest.raises(ValueError, match=r"must have a group \(\?P<rater>"):
        read_rater_labels(tmp_path / "ratersTr", case, AXES, CLASSES, pattern="(.+)")


@pytest.mark.parametrize(
    ("name", "shape", "value", "pattern", "message"),
    [
        ("carl.mha", (6, 5, 3), 0, "(?P<rater>.+)", r"carl.mha has shape \(6, 5, 3\); expected that of its image .*x1"),
        ("carl.mha", (6, 5, 4), 7, "(?P<rater>.+)", r"carl.mha holds the values \[7\], which no class has"),
        ("carl-2.mha", (6, 5, 4), 0, "(?P<rater>[a-z_0-9]+)", r"The name of .*carl-2.mha does not tell its rater"),
        ("ben.nrrd", (6, 5, 4), 0, "(?P<rater>.+)", r"ben\.\w+ and .*ben\.\w+ are the same label of rater 'ben'"),
    ],
)
def test_what_is_refused(tmp_path, volume, name, shape, value, pattern, message):
    case, _ = volume
    write(tmp_path / "ratersTr" / "a_x1" / name, np.full(shape, value))
    with pytest.raises(ValueError, match=message):
        read_rater_labels(tmp_path / "ratersTr", case, AXES, CLASSES, pattern=pattern)


def test_no_labels_of_a_case(tmp_path, volume):
    other = Case("b_x1", "b", volume[0].image)
    with pytest.raises(
        FileNotFoundError, match=r"No rater labels at .*b_x1: there is no such folder. Expected ratersTr"
    ):
        read_rater_labels(tmp_path / "ratersTr", other, AXES, CLASSES)
    (tmp_path / "ratersTr" / "b_x1").mkdir()
    with pytest.raises(FileNotFoundError, match="it holds no label"):
        read_rater_labels(tmp_path / "ratersTr", other, AXES, CLASSES)


def test_facts_of_five_real_raters(real_data, tmp_path):
    """Five people labelled 35 cells with two tools (Gurari et al. 2015); here the tools are repeats."""
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
        found = read_rater_labels(tmp_path / "ratersTr", case, Axes("depth lateral"), {"cell": 255})
        assert found.raters == tuple(f"Person{person}" for person in range(1, 6) for _ in tools)
        np.testing.assert_array_equal(*found.by_rater()["Person2"])
        dice = pairwise_dice(found.labels, 2)
        overall.append(dice[0][np.triu_indices(10, k=1)].mean())
        by_tool.append([agreement(dice[:, tool::2, tool::2], found.raters[::2]).inter[0] for tool in (0, 1)])
        within_and_between = agreement(dice, found.raters)
        intra.append(within_and_between.intra[0])
        inter.append(within_and_between.inter[0])
        # Image.open: the label in the folder is the published one.
        published = np.asarray(Image.open(masks / "Person3_ImageJ" / name)) > 0
        np.testing.assert_array_equal(found.by_rater()["Person3"][1], published)
    np.testing.assert_allclose(np.mean(by_tool, axis=0), [0.865, 0.849], atol=5e-4)
    assert np.mean(overall) == pytest.approx(0.859, abs=5e-4)
    assert np.mean(inter) == pytest.approx(0.856, abs=5e-4)
    assert np.mean(intra) > np.mean(inter)
