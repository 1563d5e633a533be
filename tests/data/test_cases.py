"""Reading and checking of cases, folder layouts, and near-duplicates."""

import numpy as np
import pytest
from scipy import ndimage

from cm_lightning.data.cases import Case, read_case
from cm_lightning.data.duplicates import near_duplicate_groups
from cm_lightning.data.layouts import find_cases
from cm_lightning.io import Axes, write_meta_image, write_nifti

CLASSES = {"soleus": 100, "medialis": 150}
AXES = Axes("lateral depth elevation")


@pytest.fixture
def volume(tmp_path, rng):
    image = rng.integers(0, 255, (6, 5, 4), dtype=np.uint8)
    label = np.zeros((6, 5, 4), dtype=np.uint8)
    label[1:3, 2:4, 1] = 150
    write_meta_image(tmp_path / "x1.mha", image, (0.5, 0.6, 0.7))
    write_meta_image(tmp_path / "masksX1.mha", label, (0.5, 0.6, 0.7))
    return Case("a", "a", tmp_path / "x1.mha", tmp_path / "masksX1.mha"), image, label


def test_axes_of_a_case(volume):
    case, image, label = volume
    arrays = read_case(case, AXES, CLASSES)
    np.testing.assert_array_equal(arrays.image, image.transpose(1, 0, 2))
    np.testing.assert_array_equal(arrays.label, 2 * (label == 150).transpose(1, 0, 2))
    np.testing.assert_allclose(arrays.spacing, (0.6, 0.5, 0.7))
    assert arrays.unit == "mm"


def test_reversed_axis(volume):
    case, image, _ = volume
    axes = Axes("lateral -depth elevation")
    flipped = read_case(case, axes, CLASSES).image
    np.testing.assert_array_equal(flipped, image.transpose(1, 0, 2)[::-1])
    np.testing.assert_array_equal(axes.to_file(flipped), image)


def test_invalid_cases_raise_errors_with_the_file_name(volume, tmp_path):
    case, image, label = volume

    def check_error(match: str, axes: Axes = AXES) -> None:
        with pytest.raises(ValueError, match=match):
            read_case(case, axes, CLASSES)

    check_error(r"x1.mha has 3 axes \(shape \(6, 5, 4\)\); expected 2", Axes("depth lateral"))
    write_meta_image(case.label, label[:-1], (1, 1, 1))
    check_error(r"masksX1.mha has the shape \(5, 5, 4\); expected \(6, 5, 4\), the shape of its image .*x1.mha")
    write_meta_image(case.label, label + 7, (1, 1, 1))
    check_error(r"masksX1.mha contains the unknown values \[7, 157\]; expected .*100 for soleus")
    write_meta_image(case.image, np.full_like(image, 3), (1, 1, 1))
    check_error(r"x1.mha is constant \(3\)")
    not_finite = image.astype(np.float32)
    not_finite[0, 0, 0] = np.nan
    write_meta_image(case.image, not_finite, (1, 1, 1))
    check_error("x1.mha contains NaN or infinite values")
    case.image.write_bytes(b"not an image")
    check_error("x1.mha cannot be read")
    case.image.unlink()
    with pytest.raises(FileNotFoundError, match=r"x1\.mha"):
        read_case(case, AXES, CLASSES)


def test_constant_frames_are_valid(volume):
    case, image, _ = volume
    image[:, :, 2] = 9
    write_meta_image(case.image, image, (1, 1, 1))
    assert read_case(case, AXES, CLASSES).image.shape == (5, 6, 4)


def test_nnunet_layout_with_patients(tmp_path):
    for name in ("anna_1", "anna_2", "bert_1"):
        write_nifti(tmp_path / "imagesTr" / f"{name}_0000.nii.gz", np.zeros((2, 2, 2), np.uint8), np.eye(4))
        write_nifti(tmp_path / "labelsTr" / f"{name}.nii.gz", np.zeros((2, 2, 2), np.uint8), np.eye(4))
    cases = find_cases(tmp_path, "nnunet", patient_pattern=r"^([a-z]+)_")
    assert [(case.id, case.patient) for case in cases] == [("anna_1", "anna"), ("anna_2", "anna"), ("bert_1", "bert")]
    (tmp_path / "patients.csv").write_text("case,patient\nanna_1,1\nanna_2,1\nbert_1,2\n")
    assert [case.patient for case in find_cases(tmp_path, "nnunet", patient_table=tmp_path / "patients.csv")] == list(
        "112"
    )
    with pytest.raises(ValueError, match="does not match the case id 'anna_1'"):
        find_cases(tmp_path, "nnunet", patient_pattern=r"^(\d+)")


def test_error_for_missing_data_sets_explains_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        find_cases(tmp_path / "missing", "leg3d")
    for expected in ("missing", "masksX1.mha", "https://", "configs/demo.yaml"):
        assert expected in str(error.value)


def test_near_duplicates_are_in_one_group(rng):
    first, second = (ndimage.gaussian_filter(rng.random((60, 50)), 4) for _ in range(2))
    groups = near_duplicate_groups([first, second, 3 * first + 0.01 * rng.random((60, 50)), second[1:, 1:]], 0.9)
    assert groups == [0, 1, 0, 1]
