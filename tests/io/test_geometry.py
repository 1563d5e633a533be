"""Files that give the insonified region: numbers, masks, and DICOM."""

import json

import numpy as np
import pytest
from PIL import Image

from cm_lightning.confidence import Polygon, Rectangle, Sector
from cm_lightning.errors import InputError
from cm_lightning.io import dicom_region, read_geometry, write_geometry

SHAPE = (40, 60)
GEOMETRIES = [
    Rectangle(2, 35, 8, 50, "bottom"),
    Sector(-4.0, 30.0, 8.0, 40.0, -40.0, 35.5, 1.1, bottom=33.0),
    Polygon(((3.0, 20.0), (3.0, 40.0), (36.0, 50.0), (36.0, 10.0)), ((3.0, 20.0), (3.0, 40.0))),
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: geometry.kind)
def test_geometry_files_are_read_as_written_and_scaled(geometry, tmp_path):
    path = tmp_path / "geometry.json"
    write_geometry(path, geometry, SHAPE)
    assert read_geometry(path, SHAPE) == geometry
    assert read_geometry(path, (80, 120)) == geometry.on_grid(SHAPE, (80, 120))
    with pytest.raises(InputError, match="frames of 40 x 60 pixels, but the frames have 60 x 60 pixels"):
        read_geometry(path, (60, 60))


def test_mask_files_are_read(tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:30, 10:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    masks = read_geometry(tmp_path / "mask.png", SHAPE).masks(SHAPE)
    np.testing.assert_array_equal(masks.domain, mask > 0)
    assert (np.argwhere(masks.source)[:, 0] == 4).all()
    assert (np.argwhere(masks.sink)[:, 0] == 29).all()
    Image.fromarray(mask * 0).save(tmp_path / "empty.png")
    with pytest.raises(InputError, match="at least one pixel that is not 0"):
        read_geometry(tmp_path / "empty.png", SHAPE)


def test_ultrasound_regions_of_dicom_files(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset = pydicom.dataset.FileDataset(str(tmp_path / "a.dcm"), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Rows, dataset.Columns = SHAPE
    regions = []
    for kind, data_type, limits in [(3, 1, (0, 0, 5, 5)), (1, 1, (8, 2, 49, 34))]:
        region = pydicom.Dataset()
        region.RegionSpatialFormat, region.RegionDataType = kind, data_type
        region.RegionLocationMinX0, region.RegionLocationMinY0 = limits[:2]
        region.RegionLocationMaxX1, region.RegionLocationMaxY1 = limits[2:]
        regions.append(region)
    dataset.SequenceOfUltrasoundRegions = pydicom.Sequence(regions)
    dataset.save_as(tmp_path / "a.dcm")
    assert read_geometry(tmp_path / "a.dcm", SHAPE) == Rectangle(2, 35, 8, 50)
    dataset.SequenceOfUltrasoundRegions = pydicom.Sequence(regions[:1])
    assert dicom_region(dataset) is None
    dataset.save_as(tmp_path / "b.dcm")
    with pytest.raises(InputError, match="has no two-dimensional ultrasound region of tissue"):
        read_geometry(tmp_path / "b.dcm", SHAPE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON: Expecting property name"),
        ("[1, 2]", "Expected an object with a 'kind', found list"),
        ('{"kind": "rectangle", "top": 1}', "A rectangle needs the key 'bottom', which is missing"),
        (json.dumps({"kind": "sector", "shape": [3.5, 2]}), "'shape' must be two positive whole numbers"),
        ('{"kind": "rectangle", "top": 90, "bottom": 95, "left": 1, "right": 3}', "lies outside frames of 40 x 60"),
        ('{"kind": "rectangle", "top": NaN, "bottom": 95, "left": 1, "right": 3}', "'top' must be a finite number"),
    ],
)
def test_invalid_files_are_named(text, message, tmp_path):
    path = tmp_path / "geometry.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"geometry.json.*{message}"):
        read_geometry(path, SHAPE)


def test_missing_and_unknown_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"geometry file .*none.json does not exist"):
        read_geometry(tmp_path / "none.json", SHAPE)
    (tmp_path / "geometry.toml").touch()
    with pytest.raises(InputError, match=r"geometry.toml is not supported; expected .json, .dcm"):
        read_geometry(tmp_path / "geometry.toml", SHAPE)
