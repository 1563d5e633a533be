"""NIfTI files: geometry, types, scaling, time, and damage."""

import gzip
import tracemalloc

import nibabel
import numpy as np
import pytest

from cm_lightning.errors import InputError
from cm_lightning.io import read_image

AFFINE = np.array([[0, -0.5, 0, 3], [0.25, 0, 0, -4], [0, 0, 2, 5], [0, 0, 0, 1]], float)


def save(path, array, affine=AFFINE, change=lambda image: None, kind=nibabel.Nifti1Image):
    image = kind(array, affine, dtype=array.dtype)
    change(image)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_values_keep_their_type(dtype, name, tmp_path, rng):
    array = rng.integers(0, 100, (3, 4, 5)).astype(dtype)
    image = read_image(save(tmp_path / name, array))
    assert image.array.dtype == array.dtype
    np.testing.assert_array_equal(image.array, array)
    np.testing.assert_allclose(image.affine, AFFINE)
    assert image.spacing == (0.25, 0.5, 2)
    assert image.axes is None


def test_big_endian_files_and_nifti_2_are_read(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, AFFINE, header), tmp_path / "big.nii")
    assert (tmp_path / "big.nii").read_bytes()[:4] == (348).to_bytes(4, "big")
    save(tmp_path / "two.nii", array, kind=nibabel.Nifti2Image)
    for name in ("big.nii", "two.nii"):
        image = read_image(tmp_path / name)
        assert image.array.dtype.isnative
        np.testing.assert_array_equal(image.array, array)
        np.testing.assert_allclose(image.affine, AFFINE)


@pytest.mark.parametrize(("dtype", "scaled"), [("u1", "f4"), ("i2", "f4"), ("f4", "f4"), ("i4", "f8"), ("f8", "f8")])
def test_slopes_and_intercepts_are_applied(dtype, scaled, tmp_path):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    path = save(tmp_path / "a.nii", array)
    with path.open("r+b") as file:
        file.seek(112)
        file.write(np.array([0.5, -3], "<f4").tobytes())
    image = read_image(path)
    assert image.array.dtype == scaled
    np.testing.assert_array_equal(image.array, array * 0.5 - 3)
    np.testing.assert_array_equal(image.array, nibabel.load(path).get_fdata())


@pytest.mark.parametrize(("codes", "expected"), [((0, 1), "qform"), ((1, 0), "sform"), ((1, 1), "sform")])
def test_the_sform_precedes_the_qform(codes, expected, tmp_path):
    forms = {"sform": AFFINE, "qform": np.diag([3.0, 2, 1, 1])}

    def change(image):
        image.header.set_sform(forms["sform"], codes[0])
        image.header.set_qform(forms["qform"], codes[1])

    image = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.uint8), None)
    change(image)
    nibabel.save(image, tmp_path / "a.nii")
    result = read_image(tmp_path / "a.nii")
    np.testing.assert_allclose(result.affine, forms[expected])
    np.testing.assert_allclose(result.spacing, np.linalg.norm(forms[expected][:3, :3], axis=0))


def test_units_become_millimetres(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((2, 3, 4), np.uint8), change=lambda i: i.header.set_xyzt_units("micron"))
    image = read_image(path)
    np.testing.assert_allclose(image.spacing, (0.25e-3, 0.5e-3, 2e-3))
    np.testing.assert_allclose(image.affine[:3], AFFINE[:3] * 1e-3)


def test_sequences_of_pictures_lose_their_empty_axis(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 1, 4)

    def change(image):
        image.header.set_zooms((0.25, 0.5, 2, 40))
        image.header.set_xyzt_units("mm", "msec")

    image = read_image(save(tmp_path / "a.nii.gz", array, change=change))
    np.testing.assert_array_equal(image.array, array[:, :, 0])
    assert image.spacing == (0.25, 0.5, 2)
    assert image.frames_per_second == pytest.approx(25)
    with pytest.raises(InputError, match=r"has 4 axes \(2 x 3 x 2 x 2\); expected .* must be split into volumes\."):
        read_image(save(tmp_path / "b.nii", array.reshape(2, 3, 2, 2)))
    assert read_image(save(tmp_path / "c.nii", array[..., :1])).array.shape == (2, 3, 1)


def test_colours_become_grey_and_colour_labels_are_refused(tmp_path):
    colours = np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours[1, 2, 3] = (200, 100, 50)
    path = save(tmp_path / "a.nii", colours)
    expected = np.zeros((2, 3, 4))
    expected[1, 2, 3] = 124
    np.testing.assert_array_equal(read_image(path).array, expected)
    with pytest.raises(InputError, match="contains colours"):
        read_image(path, is_label=True)
    with pytest.raises(InputError, match=r"values of type complex64; expected real numbers"):
        read_image(save(tmp_path / "b.nii", np.zeros((2, 3, 4), np.complex64)))


@pytest.mark.parametrize(
    ("offset", "values", "message"),
    [
        (280, [np.nan] * 12, "voxel size of nan x nan x nan mm; expected positive numbers"),
        (280, [0.0] * 12, "voxel size of 0 x 0 x 0 mm; expected positive numbers"),
        (280, [1.0, 0, 0, 0] * 3, "three different directions|voxel size of"),
        (280, [1.0, 0, 0, np.inf, 0, 1, 0, 0, 0, 0, 1, 0], r"the origin \[inf, 0.0, 0.0\]; expected finite numbers"),
        (108, [np.nan], "cannot be read as a NIfTI file|header is wrong"),
        (40, np.array([3, 2, 3, 5], "<i2"), "expected 30 bytes of pixels .* but the file has|found 24"),
        (40, np.array([3, 2, 3, 3], "<i2"), "expected 18 bytes of pixels .* but found 24"),
        (40, np.array([3, -2, 3, 4], "<i2"), "cannot be read|expected at least one voxel"),
        (40, np.array([99, 2, 3, 4], "<i2"), "cannot be read"),
        (70, np.array([77], "<i2"), "cannot be read as a NIfTI file"),
    ],
)
def test_damaged_headers_raise_one_sentence(offset, values, message, tmp_path):
    path = save(tmp_path / "a.nii", np.arange(1, 25, dtype=np.uint8).reshape(2, 3, 4))
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(np.asarray(values).astype("<f4" if not isinstance(values, np.ndarray) else values.dtype).tobytes())
    with pytest.raises(InputError, match=message) as error:
        read_image(path)
    assert "a.nii" in str(error.value)
    assert "\n" not in str(error.value)


def test_damage_of_compressed_files_is_found_everywhere(tmp_path, rng):
    array = rng.integers(0, 50, (20, 20, 6)).astype(np.uint8)
    data = save(tmp_path / "a.nii.gz", array).read_bytes()
    for place in range(12, len(data), len(data) // 40):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        (tmp_path / "b.nii.gz").write_bytes(bytes(damaged))
        with pytest.raises(InputError, match=r"b.nii.gz"):
            read_image(tmp_path / "b.nii.gz")
        (tmp_path / "b.nii.gz").write_bytes(data[:place])
        with pytest.raises(InputError, match=r"b.nii.gz"):
            read_image(tmp_path / "b.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(data + b"rubbish")
    with pytest.raises(InputError, match="other data follow"):
        read_image(tmp_path / "b.nii.gz")


def test_padding_and_several_gzip_members_are_accepted(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    data = save(tmp_path / "a.nii", array).read_bytes()
    (tmp_path / "b.nii").write_bytes(data + b"\0" * 100)
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(data[:100]) + gzip.compress(data[100:]) + b"\0" * 9)
    for name in ("b.nii", "c.nii.gz"):
        np.testing.assert_array_equal(read_image(tmp_path / name).array, array)
    (tmp_path / "b.nii").write_bytes(data + b"rubbish")
    with pytest.raises(InputError, match=r"expected 24 bytes of pixels .* but found 31"):
        read_image(tmp_path / "b.nii")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_reading_needs_no_second_copy(name, tmp_path):
    array = np.zeros((200, 200, 400), np.uint8)
    path = save(tmp_path / name, array)
    read_image(path)
    tracemalloc.start()
    read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * array.nbytes
