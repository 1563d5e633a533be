"""NRRD files: types, spaces, sequences, and damage."""

import bz2
import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from cm_lightning.errors import InputError
from cm_lightning.io import read_image
from cm_lightning.io.nrrd import TYPES

ENCODERS = {"raw": bytes, "gzip": gzip.compress, "bzip2": bz2.compress}


def write(path, array, kinds, directions, encoding="raw", extra="", space="right-anterior-superior", endian="little"):
    """Write an NRRD file whose fastest axis is the first one."""
    name = {"uint8": "uchar", "int16": "short", "float32": "float"}[array.dtype.name]
    header = (
        f"NRRD0005\n# a comment\ntype: {name}\ndimension: {array.ndim}\nspace: {space}\n"
        f"sizes: {' '.join(map(str, array.shape))}\nspace directions: {directions}\nkinds: {kinds}\n"
        f"endian: {endian}\nencoding: {encoding}\nspace origin: (1,2,3)\n{extra}\n"
    )
    stored = array.astype(array.dtype.newbyteorder(">" if endian == "big" else "<")).tobytes(order="F")
    path.write_bytes(header.encode() + ENCODERS[encoding](stored))
    return path


@pytest.mark.parametrize("dtype", sorted(TYPES))
@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr"])
@pytest.mark.parametrize("is_compressed", [False, True])
def test_files_are_read_as_by_simpleitk(dtype, name, is_compressed, tmp_path, rng):
    array = rng.integers(0, 100, (3, 4, 5)).astype(dtype)
    stored = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    stored.SetSpacing((0.5, 0.25, 2.0))
    stored.SetOrigin((3.0, -4.0, 5.0))
    stored.SetDirection((0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    sitk.WriteImage(stored, str(tmp_path / name), is_compressed)
    image = read_image(tmp_path / name)
    assert image.array.dtype == array.dtype
    np.testing.assert_array_equal(image.array, array)
    np.testing.assert_allclose(image.spacing, (0.5, 0.25, 2.0))
    for index in [(0, 0, 0), (2, 3, 4), (1, 0, 2)]:
        x, y, z = stored.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(image.affine @ [*index, 1], [-x, -y, z, 1], atol=1e-12)


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("right-anterior-superior", (1, 1, 1)),
        ("left-posterior-superior", (-1, -1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
        ("RAS", (1, 1, 1)),
    ],
)
def test_spaces_differ_by_their_signs(space, signs, tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = write(tmp_path / "a.nrrd", array, "domain domain domain", "(0.5,0,0) (0,0.25,0) (0,0,2)", space=space)
    image = read_image(path)
    np.testing.assert_array_equal(image.array, array)
    expected = np.diag([*np.multiply(signs, (0.5, 0.25, 2)), 1])
    expected[:3, 3] = np.multiply(signs, (1, 2, 3))
    np.testing.assert_array_equal(image.affine, expected)


@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize("endian", ["little", "big"])
def test_encodings_and_byte_orders(encoding, endian, tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4) * 300
    path = write(tmp_path / "a.nrrd", array, "space space space", "(1,0,0) (0,1,0) (0,0,1)", encoding, endian=endian)
    image = read_image(path)
    assert image.array.dtype.isnative
    np.testing.assert_array_equal(image.array, array)
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    with pytest.raises(InputError, match=r"a.nrrd is damaged"):
        read_image(path)
    path.write_bytes(data + b"rubbish")
    with pytest.raises(InputError, match=r"a.nrrd is damaged"):
        read_image(path)


def test_text_is_read(tmp_path):
    (tmp_path / "a.nrrd").write_text(
        "NRRD0004\ntype: short\ndimension: 2\nsizes: 3 2\nencoding: text\n\n1 2 3\n4 5 6\n"
    )
    np.testing.assert_array_equal(read_image(tmp_path / "a.nrrd").array, [[1, 4], [2, 5], [3, 6]])


@pytest.mark.parametrize("place", [0, 3])
def test_sequences_of_3d_slicer_have_their_frames_last(place, tmp_path, rng):
    frames = rng.integers(0, 256, (5, 4, 1, 3)).astype(np.uint8)
    kinds, directions = ["domain"] * 3, ["(0.5,0,0)", "(0,0.25,0)", "(0,0,2)"]
    kinds.insert(place, "list")
    directions.insert(place, "none")
    fields = f"axis {place} index type:=time\naxis {place} index unit:=s\naxis {place} index values:=0 0.5 1\n"
    path = write(
        tmp_path / "a.seq.nrrd", np.moveaxis(frames, 3, place), " ".join(kinds), " ".join(directions), "gzip", fields
    )
    image = read_image(path)
    np.testing.assert_array_equal(image.array, frames[:, :, 0])
    assert image.spacing == (0.5, 0.25, 2)
    assert image.frames_per_second == 2
    assert image.tags["axis 3 index values"] == "0 0.5 1"


def test_sequences_of_plus_may_have_colours(tmp_path):
    colours = np.broadcast_to(np.array([200, 100, 50], np.uint8)[:, None, None, None], (3, 5, 4, 2))
    path = write(
        tmp_path / "a.nrrd",
        colours,
        "RGB-color domain domain list",
        "none (0.5,0,0) (0,0.25,0) none",
        extra="UltrasoundImageOrientation:=MFA\nnote:=two\\nlines\n",
    )
    image = read_image(path)
    np.testing.assert_array_equal(image.array, np.full((5, 4, 2), 124))
    assert (image.axes, image.spacing) == ("lateral depth elevation", (0.5, 0.25, 1))
    assert image.tags["note"] == "two\nlines"
    np.testing.assert_array_equal(image.affine[:3, 3], (1, 2, 3))
    with pytest.raises(InputError, match="contains colours"):
        read_image(path, is_label=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sizes: 2 3 4", "sizes: 2 3 5", "expected 60 bytes of pixels .* but found 48|but the file has"),
        ("sizes: 2 3 4", "sizes: 2 3 3", "expected 36 bytes of pixels .* but found 48"),
        ("sizes: 2 3 4", "sizes: 2 3", "has the field 'sizes' '2 3' in its header; expected 3 whole number"),
        ("sizes: 2 3 4", "sizes: 2 -3 4", "expected positive numbers"),
        ("type: short", "type: block", "has the type 'block' and the encoding 'raw'; expected a type such as"),
        ("encoding: raw", "encoding: hex", "and the encoding 'hex'"),
        ("(1,0,0)", "(nan,0,0)", "expected finite vectors that are not 0"),
        ("(1,0,0)", "(0,0,0)", "expected finite vectors that are not 0"),
        ("(1,0,0)", "(0,1,0)", "three different directions"),
        ("(1,0,0)", "(a,0,0)", "expected numbers such as"),
        ("(1,0,0) ", "", "expected one vector per space axis"),
        ("(1,2,3)", "(1,2)", "expected 3 numbers"),
        ("kinds: domain", "kinds: complex", "axes of the kinds complex domain domain; expected domain"),
        ("kinds: domain", "kinds:", "has 2 kinds"),
        ("NRRD0005", "NRRX0005", "does not begin with NRRD000"),
        ("kinds: domain", "kinds domain", "its header has the line 'kinds domain"),
    ],
)
def test_headers_that_do_not_fit_raise_one_sentence(old, new, message, tmp_path):
    array = np.arange(1, 25, dtype=np.int16).reshape(2, 3, 4)
    path = write(tmp_path / "a.nrrd", array, "domain domain domain", "(1,0,0) (0,1,0) (0,0,1)")
    data = path.read_bytes()
    assert old.encode() in data
    path.write_bytes(data.replace(old.encode(), new.encode(), 1))
    with pytest.raises(InputError, match=message) as error:
        read_image(path)
    assert "a.nrrd" in str(error.value)
    assert "\n" not in str(error.value)


def test_sequences_of_volumes_are_refused(tmp_path):
    array = np.zeros((2, 3, 4, 5), np.uint8)
    path = write(tmp_path / "a.nrrd", array, "domain domain domain list", "(1,0,0) (0,1,0) (0,0,1) none")
    with pytest.raises(InputError, match="Sequences of volumes must be split into volumes"):
        read_image(path)
