"""MetaImage files: types, places, sequences, and damage."""

import re
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from cm_lightning.errors import InputError
from cm_lightning.io import read_image
from cm_lightning.io.metaimage import TYPES

ROTATION = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def save(path, array, is_compressed=False, is_colour=False, direction=ROTATION):
    """Save an array with the axes (x, y, z) by SimpleITK."""
    image = sitk.GetImageFromArray(array if is_colour else np.ascontiguousarray(array.T), isVector=is_colour)
    image.SetSpacing((0.5, 0.25, 2.0)[: image.GetDimension()])
    if image.GetDimension() == 3:
        image.SetOrigin((3.0, -4.0, 5.0))
        image.SetDirection(direction)
    sitk.WriteImage(image, str(path), is_compressed)
    return path


def sequence(frames, orientation="MFA", is_compressed=False):
    """Return a file like those of PLUS, with the axes (x, y, frame)."""
    width, height, number = frames.shape
    data = frames.tobytes(order="F")
    stored = zlib.compress(data) if is_compressed else data
    fields = [
        "ObjectType = Image",
        "NDims = 3",
        "AnatomicalOrientation = RAI",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        f"CompressedData = {is_compressed}",
        *([f"CompressedDataSize = {len(stored)}"] if is_compressed else []),
        f"DimSize = {width} {height} {number}",
        "ElementNumberOfChannels = 1",
        "ElementSpacing = 1 1 1",
        "ElementType = MET_UCHAR",
        "Kinds = domain domain list",
        "Offset = 0 0 0",
        "TransformMatrix = 1 0 0 0 1 0 0 0 1",
        f"UltrasoundImageOrientation = {orientation}",
        "UltrasoundImageType = BRIGHTNESS",
    ]
    for index in range(number):
        fields += [
            f"Seq_Frame{index:04d}_ProbeToTrackerTransform = 1 0 0 {index} 0 1 0 0 0 0 1 0 0 0 0 1",
            f"Seq_Frame{index:04d}_ProbeToTrackerTransformStatus = OK",
            f"Seq_Frame{index:04d}_Timestamp = {7 + index * 0.05}",
        ]
    return "\n".join([*fields, "ElementDataFile = LOCAL\n"]).encode() + stored


@pytest.mark.parametrize("dtype", sorted(set(TYPES.values())))
@pytest.mark.parametrize("name", ["a.mha", "a.mhd"])
@pytest.mark.parametrize("is_compressed", [False, True])
def test_files_are_read_as_by_simpleitk(dtype, name, is_compressed, tmp_path, rng):
    array = rng.integers(0, 100, (3, 4, 5)).astype(dtype)
    image = read_image(save(tmp_path / name, array, is_compressed))
    assert image.array.dtype == array.dtype
    np.testing.assert_array_equal(image.array, array)
    assert (image.spacing, image.axes) == ((0.5, 0.25, 2.0), None)
    expected = sitk.ReadImage(str(tmp_path / name))
    for index in [(0, 0, 0), (2, 3, 4), (1, 0, 2)]:
        x, y, z = expected.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(image.affine @ [*index, 1], [-x, -y, z, 1])


def test_pictures_have_two_axes(tmp_path):
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = read_image(save(tmp_path / "a.mha", array))
    np.testing.assert_array_equal(image.array, array)
    assert image.spacing == (0.5, 0.25)


def test_big_endian_values_are_native_numbers(tmp_path):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5) * 300
    data = save(tmp_path / "a.mha", array).read_bytes()
    head, _ = data.split(b"LOCAL\n")
    head = head.replace(b"BinaryDataByteOrderMSB = False", b"BinaryDataByteOrderMSB = True")
    (tmp_path / "a.mha").write_bytes(head + b"LOCAL\n" + array.astype(">i2").tobytes(order="F"))
    image = read_image(tmp_path / "a.mha")
    assert image.array.dtype.isnative
    np.testing.assert_array_equal(image.array, array)


def test_colours_become_grey(tmp_path):
    colours = np.full((5, 4, 3, 3), (200, 100, 50), np.uint8)
    path = save(tmp_path / "a.mha", colours, is_colour=True)
    image = read_image(path)
    np.testing.assert_array_equal(image.array, np.full((3, 4, 5), 124))
    assert image.spacing == (0.5, 0.25, 2.0)
    with pytest.raises(InputError, match="contains colours"):
        read_image(path, is_label=True)
    with pytest.raises(InputError, match="has 3 values of type float32 per pixel; expected one value, or 3 or 4"):
        read_image(save(tmp_path / "b.mha", colours.astype(np.float32), is_colour=True))


@pytest.mark.parametrize("is_compressed", [False, True])
def test_sequences_of_plus_keep_their_fields(is_compressed, tmp_path, rng):
    frames = rng.integers(0, 256, (5, 4, 3)).astype(np.uint8)
    (tmp_path / "a.seq.mha").write_bytes(sequence(frames, is_compressed=is_compressed))
    image = read_image(tmp_path / "a.seq.mha")
    np.testing.assert_array_equal(image.array, frames)
    assert image.axes == "lateral depth elevation"
    assert image.frames_per_second == pytest.approx(20)
    assert image.tags["Seq_Frame0002_ProbeToTrackerTransform"] == "1 0 0 2 0 1 0 0 0 0 1 0 0 0 0 1"
    assert image.tags["UltrasoundImageType"] == "BRIGHTNESS"
    assert "DimSize" not in image.tags


@pytest.mark.parametrize(
    ("orientation", "axes"),
    [
        ("MF", "lateral depth elevation"),
        ("MN", "lateral -depth elevation"),
        ("UFD", "lateral depth elevation"),
        ("FMA", "depth lateral elevation"),
        ("FF", None),
        ("XX", None),
    ],
)
def test_the_orientation_of_plus_names_the_axes(orientation, axes, tmp_path):
    (tmp_path / "a.mha").write_bytes(sequence(np.zeros((5, 4, 3), np.uint8), orientation))
    assert read_image(tmp_path / "a.mha").axes == axes


def test_text_and_lists_of_slices_are_read(tmp_path):
    head = (
        "ObjectType = Image\nNDims = 3\nDimSize = 3 2 2\nBinaryData = {}\nBinaryDataByteOrderMSB = False\n"
        "ElementType = MET_USHORT\nElementSpacing = 1 1 1\nElementDataFile = "
    )
    expected = np.arange(12).reshape(2, 2, 3).T
    (tmp_path / "a.mha").write_text(head.format(False) + "LOCAL\n" + " ".join(str(i) for i in range(12)) + "\n")
    for index in range(2):
        (tmp_path / f"{index}.raw").write_bytes(expected[:, :, index].astype("<u2").tobytes(order="F"))
    (tmp_path / "b.mhd").write_text(head.format(True) + "LIST\n0.raw\n1.raw\n")
    (tmp_path / "c.mhd").write_text(head.format(True) + "%d.raw 0 1 1\n")
    for name in ("a.mha", "b.mhd", "c.mhd"):
        np.testing.assert_array_equal(read_image(tmp_path / name).array, expected, err_msg=name)
    (tmp_path / "1.raw").unlink()
    with pytest.raises(InputError, match=r"b.mhd cannot be read as a MetaImage file"):
        read_image(tmp_path / "b.mhd")


def test_data_files_are_found_with_their_headers(tmp_path):
    array = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    path = save(tmp_path / "a.mhd", array)
    data = (tmp_path / "a.raw").read_bytes()
    (tmp_path / "a.raw").write_bytes(b"1234" + data)
    text = path.read_text()
    with pytest.raises(InputError, match=r"a.raw is damaged, .* expected 60 bytes of pixels .* but found 64"):
        read_image(path)
    for size in (4, -1):
        path.write_text(text.replace("ElementDataFile", f"HeaderSize = {size}\nElementDataFile"))
        np.testing.assert_array_equal(read_image(path).array, array)
    (tmp_path / "a.raw").unlink()
    with pytest.raises(InputError, match=r"The file .*a.raw with the pixels of the image does not exist"):
        read_image(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ElementSpacing", "0 0 1", "voxel size of 0 x 0 x 1 mm; expected positive numbers"),
        ("ElementSpacing", "nan 1 1", "ElementSpacing = nan 1 1 in its header; expected 3 finite numbers"),
        ("ElementSpacing", "1 1", "expected 3 finite numbers"),
        ("TransformMatrix", "0 0 0 0 0 0 0 0 0", "three different directions"),
        ("TransformMatrix", "1 0 0 1 0 0 0 0 1", "three different directions"),
        ("Offset", "x 0 0", "Offset = x 0 0 in its header"),
        ("DimSize", "3 4 6", "expected 72 bytes of pixels .* but found 60"),
        ("DimSize", "3 4 4", "expected 48 bytes of pixels .* but found 60"),
        ("DimSize", "3000000 4000000 5000000", "but the file has only"),
        ("DimSize", "3 0 5", "expected positive numbers"),
        ("DimSize", "3 4.5 5", "DimSize = 3 4.5 5 in its header; expected 3 whole number"),
        ("NDims", "7", "NDims = 7; expected 2 to 5 axes"),
        ("ElementType", "MET_STRING", "ElementType = MET_STRING .*expected one of MET_CHAR"),
        ("ElementType", "MET_DOUBLE", "expected 480 bytes of pixels"),
    ],
)
def test_headers_that_do_not_fit_raise_one_sentence(field, value, message, tmp_path):
    path = save(tmp_path / "a.mha", np.arange(1, 61, dtype=np.uint8).reshape(3, 4, 5))
    path.write_bytes(re.sub(f"{field} = .*".encode(), f"{field} = {value}".encode(), path.read_bytes()))
    with pytest.raises(InputError, match=message) as error:
        read_image(path)
    assert "a.mha" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_spacing_is_unknown(tmp_path):
    path = save(tmp_path / "a.mha", np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
    path.write_bytes(re.sub(b"ElementSpacing = .*\n", b"", path.read_bytes()))
    assert read_image(path).spacing is None


@pytest.mark.parametrize("is_compressed", [False, True])
def test_truncated_files_are_found_everywhere(is_compressed, tmp_path, rng):
    data = save(tmp_path / "a.mha", rng.integers(0, 9, (9, 9, 9)).astype(np.uint8), is_compressed).read_bytes()
    for length in range(1, len(data), 23):
        (tmp_path / "b.mha").write_bytes(data[:length])
        with pytest.raises(InputError, match=r"b.mha"):
            read_image(tmp_path / "b.mha")


def test_damage_of_compressed_files_is_found_everywhere(tmp_path, rng):
    data = save(tmp_path / "a.mha", rng.integers(0, 9, (20, 20, 9)).astype(np.uint8), True).read_bytes()
    start = data.index(b"LOCAL\n") + 6
    for place in range(start, len(data), (len(data) - start) // 50):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        (tmp_path / "b.mha").write_bytes(bytes(damaged))
        with pytest.raises(InputError, match=r"b.mha is damaged"):
            read_image(tmp_path / "b.mha")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty; expected an image"),
        (b"hello\nworld\n", "cannot be read as a MetaImage file"),
        (b"NDims = 3\nDimSize = 1 1 1\n", "its header ends without ElementDataFile"),
        (b"NDims = 3\nElementDataFile = LOCAL\n", "has no field DimSize in its header"),
        (b"\0" * 5000, "cannot be read as a MetaImage file"),
    ],
)
def test_other_contents_raise_one_sentence(data, message, tmp_path):
    (tmp_path / "a.mha").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_image(tmp_path / "a.mha")
