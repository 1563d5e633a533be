"""Names of image files, and real files."""

import errno
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.io import SUFFIXES, Axes, FrameWriter, image_files, is_image, is_picture, read_image, stem


def test_image_files_of_a_folder_and_of_its_subfolders(tmp_path):
    for name in ("b.png", "a.txt", ".hidden.png", "one/c.png", "one/two/d.nii.gz"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(b"x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "e.png").write_bytes(b"x")
    (tmp_path / "set" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "set" / "one" / "again").symlink_to(tmp_path / "set")
    names = [str(file.relative_to(tmp_path / "set")) for file in image_files(tmp_path / "set", with_subfolders=True)]
    assert names == ["b.png", "link/e.png", "one/c.png", "one/two/d.nii.gz"]
    assert image_files(tmp_path / "set") == [tmp_path / "set" / "b.png"]


def test_subfolders_that_cannot_be_read_are_no_missing_images(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "a":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=f"The folder {tmp_path / 'a'} cannot be read: Permission denied"):
        image_files(tmp_path, with_subfolders=True)
    assert image_files(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.nii.gz", "a"),
        ("a.b.NII.GZ", "a.b"),
        ("a.seq.mha", "a.seq"),
        ("a.seq.nrrd", "a.seq"),
        ("a.JPEG", "a"),
        ("a.dcm", "a"),
        ("a.mp4", "a"),
    ],
)
def test_suffixes_are_removed_from_names(name, expected):
    assert stem(Path(name)) == expected
    assert is_image(Path(name))


def test_pictures_are_told_from_other_images():
    assert [is_picture(Path(f"a{suffix}")) for suffix in (".png", ".GIF", ".nii.gz", ".dcm", ".mp4")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert not any(is_image(Path(name)) for name in (".a.png", "a.txt", "a.gz", "png", "a.npz"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_and_missing_files_raise_one_sentence(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    with pytest.raises(MissingInputError, match="does not exist"):
        read_image(path)
    path.touch()
    with pytest.raises(InputError, match="is empty; expected an image"):
        read_image(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("data", [b"\0" * 4000, b"\xff" * 4000, b"text\n" * 800, b"\x1f\x8b" * 2000])
def test_wrong_contents_raise_one_sentence(suffix, data, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        read_image(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_formats_and_folders_are_named(tmp_path):
    (tmp_path / "a.webp").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"The format of .*a.webp is not supported; expected one of .nii.gz"):
        read_image(tmp_path / "a.webp")
    with pytest.raises(MissingInputError, match="does not exist"):
        read_image(tmp_path)


def test_real_pictures_are_read_as_by_pillow(real_data):
    for path in sorted((real_data / "screens").glob("*.png")):
        with Image.open(path) as picture:
            expected = np.asarray(picture.convert("L"))
        np.testing.assert_array_equal(read_image(path).array, expected, err_msg=path.name)


@pytest.mark.parametrize("suffix", ["nii.gz", "mha", "nrrd"])
def test_the_map_of_a_real_sequence_has_its_geometry(suffix, real_data, tmp_path):
    path = real_data / "plus_us" / "BoneUltrasound_L14_cropped.nii.gz"
    image, axes = read_image(path), Axes("lateral depth elevation")
    expected = nibabel.load(path)
    np.testing.assert_array_equal(image.array, np.asanyarray(expected.dataobj))
    frames = np.moveaxis(axes.from_file(image.array), 2, 0) / np.float32(255)
    with FrameWriter(tmp_path / f"a.{suffix}", image, axes, "uint8") as writer:
        for frame in frames:
            writer.write(frame[None])
    copy = read_image(tmp_path / f"a.{suffix}")
    scale = 255 if suffix == "nii.gz" else 1
    np.testing.assert_allclose(copy.array * scale, image.array, atol=1e-4)
    np.testing.assert_allclose(copy.affine, expected.affine, atol=1e-5)
    np.testing.assert_allclose(copy.spacing, image.spacing, rtol=1e-6)
