"""DICOM files of scanners, written by pydicom."""

import numpy as np
import pytest

from cm_lightning.confidence import Rectangle
from cm_lightning.errors import InputError
from cm_lightning.io import is_image, read_image

pydicom = pytest.importorskip("pydicom")
ROWS, COLUMNS = 6, 8


def region(**changes):
    values = {
        "RegionSpatialFormat": 1,
        "RegionDataType": 1,
        "RegionLocationMinX0": 1,
        "RegionLocationMinY0": 2,
        "RegionLocationMaxX1": 6,
        "RegionLocationMaxY1": 4,
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.02,
        "PhysicalDeltaY": -0.01,
    }
    item = pydicom.Dataset()
    for name, value in {**values, **changes}.items():
        setattr(item, name, value)
    return item


def save(path, pixels, photometric="MONOCHROME2", syntax=pydicom.uid.ExplicitVRLittleEndian, **fields):
    """Write pixels, ``([frames, ]rows, columns[, colours])``, to a DICOM file."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = pydicom.uid.UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    colours = 3 if photometric in ("RGB", "YBR_FULL") else 1
    shape = pixels.shape[:-1] if colours == 3 else pixels.shape
    dataset.Rows, dataset.Columns = shape[-2:]
    if len(shape) == 3:
        dataset.NumberOfFrames = shape[0]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = colours, photometric
    if colours == 3:
        dataset.PlanarConfiguration = 0
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    for name, value in fields.items():
        setattr(dataset, name, value)
    if syntax == pydicom.uid.RLELossless:
        dataset.PixelData = b""
        dataset.compress(syntax, np.ascontiguousarray(pixels))
    else:
        dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def frames(rng):
    return rng.integers(0, 256, (3, ROWS, COLUMNS)).astype(np.uint8)


@pytest.mark.parametrize("syntax", ["ExplicitVRLittleEndian", "ImplicitVRLittleEndian", "RLELossless"])
def test_loops_have_their_frames_last(syntax, frames, tmp_path):
    path = save(tmp_path / "a.dcm", frames, syntax=getattr(pydicom.uid, syntax), FrameTime="40")
    image = read_image(path)
    np.testing.assert_array_equal(image.array, np.moveaxis(frames, 0, -1))
    assert (image.axes, image.frames_per_second) == ("depth lateral elevation", 25)
    assert (image.spacing, image.region) == (None, None)


def test_single_images_have_two_axes(frames, tmp_path):
    image = read_image(save(tmp_path / "a.dicom", frames[0]))
    np.testing.assert_array_equal(image.array, frames[0])
    assert image.axes == "depth lateral"
    values = frames[0].astype(np.int16) * 100 - 9000
    np.testing.assert_array_equal(read_image(save(tmp_path / "b.dcm", values)).array, values)


def test_regions_of_tissue_give_rectangle_and_pixel_size(frames, tmp_path):
    regions = pydicom.Sequence([region(RegionDataType=2, PhysicalDeltaX=9.0), region()])
    image = read_image(save(tmp_path / "a.dcm", frames, SequenceOfUltrasoundRegions=regions, PixelSpacing=[7, 7]))
    assert image.region == Rectangle(2, 5, 1, 7)
    assert image.spacing == (0.1, 0.2, 1)
    np.testing.assert_allclose(image.affine @ [2, 3, 1, 1], [-0.6, -0.2, 1, 1])


@pytest.mark.parametrize("units", [{"PhysicalUnitsXDirection": 4}, {"PhysicalDeltaY": 0.0}])
def test_without_centimetres_the_pixel_spacing_is_used(units, frames, tmp_path):
    regions = pydicom.Sequence([region(**units)])
    fields = {"PixelSpacing": [0.3, 0.4], "SpacingBetweenSlices": 2}
    image = read_image(save(tmp_path / "a.dcm", frames, SequenceOfUltrasoundRegions=regions, **fields))
    assert image.spacing == (0.3, 0.4, 2)
    assert read_image(save(tmp_path / "b.dcm", frames, SequenceOfUltrasoundRegions=regions)).spacing is None


def test_monochrome1_is_inverted(frames, tmp_path):
    image = read_image(save(tmp_path / "a.dcm", frames, "MONOCHROME1"))
    np.testing.assert_array_equal(image.array, 255 - np.moveaxis(frames, 0, -1))
    stored = (frames.astype(np.uint16) << 4)[0]
    path = save(tmp_path / "b.dcm", stored, "MONOCHROME1", BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_image(path).array, 4095 - stored)
    np.testing.assert_array_equal(read_image(path, is_label=True).array, stored)


def test_slopes_are_applied(frames, tmp_path):
    image = read_image(save(tmp_path / "a.dcm", frames[0], RescaleSlope="0.5", RescaleIntercept="-3"))
    np.testing.assert_array_equal(image.array, frames[0] * 0.5 - 3)


def test_colours_and_palettes_become_grey(tmp_path):
    colours = np.full((2, ROWS, COLUMNS, 3), (200, 100, 50), np.uint8)
    path = save(tmp_path / "rgb.dcm", colours, "RGB")
    np.testing.assert_array_equal(read_image(path).array, np.full((ROWS, COLUMNS, 2), 124))
    with pytest.raises(InputError, match="contains colours"):
        read_image(path, is_label=True)
    # Grey in YBR has the luma 77 and a chroma of 128.
    grey = np.full((ROWS, COLUMNS, 3), (77, 128, 128), np.uint8)
    np.testing.assert_array_equal(read_image(save(tmp_path / "ybr.dcm", grey, "YBR_FULL")).array, 77)
    tables = {}
    for name, value in {"Red": 200, "Green": 100, "Blue": 50}.items():
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [2, 0, 8]
        tables[f"{name}PaletteColorLookupTableData"] = bytes([0, value])
    indices = np.zeros((2, ROWS, COLUMNS), np.uint8)
    indices[1, 2, 3] = 1
    path = save(tmp_path / "palette.dcm", indices, "PALETTE COLOR", **tables)
    assert read_image(path).array[2, 3].tolist() == [0, 124]
    np.testing.assert_array_equal(read_image(path, is_label=True).array, np.moveaxis(indices, 0, -1))


def test_files_without_suffix_are_recognised_by_their_beginning(frames, tmp_path):
    for name in ("IM0001", "1.2.840.10008.7"):
        path = save(tmp_path / name, frames[0])
        assert is_image(path)
        np.testing.assert_array_equal(read_image(path).array, frames[0])
    (tmp_path / "README").write_text("text")
    assert not is_image(tmp_path / "README")
    assert not is_image(tmp_path / "missing")


@pytest.mark.parametrize(
    ("syntax", "name"), [("JPEGLSLossless", "JPEG-LS"), ("MPEG4HP41", "MPEG-4"), ("HTJ2KLossless", "High-Throughput")]
)
def test_missing_decoders_raise_one_sentence(syntax, name, frames, tmp_path, monkeypatch):
    path = save(tmp_path / "a.dcm", frames, syntax=pydicom.uid.RLELossless)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    dataset.save_as(path)
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", property(lambda self: False))
    with pytest.raises(InputError, match=rf"a.dcm is compressed with .*{name}.*, for which pydicom has no decoder"):
        read_image(path)


@pytest.mark.parametrize("syntax", ["ExplicitVRLittleEndian", "RLELossless"])
def test_truncated_files_raise_one_sentence(syntax, frames, tmp_path):
    data = save(tmp_path / "a.dcm", frames, syntax=getattr(pydicom.uid, syntax)).read_bytes()
    for length in range(1, len(data) - 2, 37):
        (tmp_path / "b.dcm").write_bytes(data[:length])
        with pytest.raises(InputError, match=r"b.dcm") as error:
            read_image(tmp_path / "b.dcm")
        assert "\n" not in str(error.value)


def test_files_without_pixels_raise_one_sentence(tmp_path):
    path = save(tmp_path / "a.dcm", np.zeros((ROWS, COLUMNS), np.uint8))
    dataset = pydicom.dcmread(path)
    del dataset.Rows
    dataset.save_as(path)
    with pytest.raises(InputError, match="contains no picture: it has no Rows; expected an ultrasound image or loop"):
        read_image(path)
    (tmp_path / "b.dcm").write_text("text")
    with pytest.raises(InputError, match=r"b.dcm cannot be read as a DICOM file: .*'DICM' prefix is missing"):
        read_image(tmp_path / "b.dcm")


def test_without_pydicom_the_extra_is_named(frames, tmp_path, monkeypatch):
    path = save(tmp_path / "a.dcm", frames)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(InputError, match=r"needs pydicom; install cm_lightning\[dicom\]"):
        read_image(path)
