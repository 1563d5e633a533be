"""Measurement of single cases: known values and volumes, and every problem of a file."""

import numpy as np
import pytest
from PIL import Image

from cm_lightning.data.cases import Case
from cm_lightning.inspection.measuring import Measuring, measure_case
from cm_lightning.inspection.statistics import count_values, measure_intensities, parts
from cm_lightning.io import write_meta_image, write_nifti

QUICK = Measuring(is_region_searched=False)


@pytest.fixture
def case(tmp_path, rng):
    """Return a volume of (6, 5, 4) voxels of 0.5 x 0.5 x 2 mm with ten voxels of 7 and three of 2."""
    image = rng.integers(0, 255, (6, 5, 4), dtype=np.uint8)
    label = np.zeros((6, 5, 4), dtype=np.uint8)
    label[:2, :, 1], label[4, :3, 2] = 7, 2
    case = Case("a", "a", tmp_path / "a.nii.gz", tmp_path / "a_mask.nii.gz")
    affine = np.diag([0.5, 0.5, 2.0, 1.0])
    write_nifti(case.image, image, affine)
    write_nifti(case.label, label, affine)
    return case, image, label, affine


def kinds(case):
    return [(problem.kind, problem.is_fatal) for problem in measure_case(case, QUICK).problems]


def test_known_volume(case):
    case, image, _, _ = case
    found = measure_case(case, QUICK)
    assert found.problems == ()
    assert (found.shape, found.dtype, found.spacing) == ((6, 5, 4), "uint8", (0.5, 0.5, 2.0))
    assert (found.axes, found.states_axes) == ("lateral depth elevation", False)
    assert found.values == {0: 107, 2: 3, 7: 10}
    assert (found.foreground, found.unit, found.voxel) == ({2: 3, 7: 10}, "mm3", 0.5)
    assert found.intensities.mean == pytest.approx(image.mean())
    # The picture is the frame with the largest label, with depth along the rows.
    np.testing.assert_array_equal(found.picture.frame, image[:, :, 1].T)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_intensities_of_all_types(dtype, rng, monkeypatch):
    monkeypatch.setattr("cm_lightning.inspection.statistics.PART", 500)
    array = rng.integers(0, 200, (30, 20, 9)).astype(dtype) - (50 if np.dtype(dtype).kind != "u" else 0)
    assert len(list(parts(array))) == 9
    stats, digest = measure_intensities(array)
    assert (stats.minimum, stats.maximum) == (array.min(), array.max())
    assert stats.mean == pytest.approx(array.mean())
    expected = np.quantile(array, [0.01, 0.5, 0.99])
    np.testing.assert_allclose([stats.percentile1, stats.median, stats.percentile99], expected, atol=1)
    assert measure_intensities(np.asfortranarray(array))[1] == digest
    changed = array.copy()
    changed[3, 4, 5] += 1
    assert measure_intensities(changed)[1] != digest


def test_values_of_labels(rng):
    label = rng.integers(0, 5, (40, 30)).astype(np.uint8)
    expected = {value: int((label == value).sum()) for value in range(5)}
    assert count_values(label) == count_values(label.astype(np.float64)) == expected
    assert all(isinstance(value, int) for value in count_values(label.astype(np.float32)))
    assert count_values(rng.random((40, 30))) is None


def test_every_problem_of_a_file(case):
    case, image, label, affine = case
    write_nifti(case.label, label.astype(np.float64) * 1.00000006, affine)
    assert kinds(case) == []  # rounded, as in training
    write_nifti(case.label, label.astype(np.float64) * 1.1, affine)
    assert kinds(case) == [("fractional values", True)]
    assert "such as 2.2; expected" in measure_case(case, QUICK).problems[0].text
    write_nifti(case.label, label[:-1], affine)
    assert kinds(case) == [("grid of the label", True)]
    write_nifti(case.label, 0 * label, affine)
    assert kinds(case) == [("empty label", False)]
    shifted = affine.copy()
    shifted[0, 3] = 5
    write_nifti(case.label, label, shifted)
    assert kinds(case) == [("grid of the label", True)]
    mirrored = affine @ np.diag([-1.0, 1.0, 1.0, 1.0])
    mirrored[0, 3] = affine[0, 0] * (label.shape[0] - 1)
    write_nifti(case.label, label[::-1], mirrored)
    assert kinds(case) == [("orientation of the label", False)]
    case.label.unlink()
    assert kinds(case) == [("image without label", True)]
    write_nifti(case.label, label, affine)
    write_nifti(case.image, 0 * image + 3, affine)
    assert kinds(case) == [("constant image", True)]
    damaged = image.astype(np.float32)
    damaged[0, 0, 0] = np.nan
    write_nifti(case.image, damaged, affine)
    assert kinds(case) == [("not finite", True)]
    assert measure_case(case, QUICK).intensities.mean == pytest.approx(damaged[np.isfinite(damaged)].mean())
    case.image.write_bytes(case.image.read_bytes()[:40])
    assert kinds(case) == [("unreadable image", True)]


def test_label_with_too_many_values(tmp_path, frame):
    image, label = frame(value=200)
    case = Case("a", "a", tmp_path / "a.mha", tmp_path / "a_mask.mha")
    write_meta_image(case.image, image, (1.0, 1.0))
    write_meta_image(case.label, label + np.arange(label.size).reshape(label.shape).astype(np.int32), (1.0, 1.0))
    assert kinds(case) == [("values of the label", True)]


def test_frames_on_their_side(real_data, tmp_path):
    name = "0003.png"
    case = Case("a", "a", real_data / "usgra_seg" / "images" / name, real_data / "usgra_seg" / "masks" / name)
    found = measure_case(case, Measuring())
    assert not found.region.lies_on_its_side
    assert found.region.side == "top"
    assert found.region.score > 0.5
    assert found.problems == ()
    turned = Case("a", "a", tmp_path / "a.png", tmp_path / "a_mask.png")
    for before, after in ((case.image, turned.image), (case.label, turned.label)):
        Image.open(before).transpose(Image.Transpose.TRANSPOSE).save(after)
    (problem,) = measure_case(turned, Measuring()).problems
    assert problem.kind == "frames on their side"
    assert "exchange depth and lateral in data.axes" in problem.text
