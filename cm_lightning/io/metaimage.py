"""Reading of MetaImage files (``.mha``, ``.mhd``), with the sequences of PLUS and 3D Slicer."""

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from cm_lightning.errors import InputError
from cm_lightning.io.file_image import FileImage, library_errors
from cm_lightning.io.raw_data import RawData
from cm_lightning.io.volumes import VolumeGeometry, volume_image

TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
DATA_FILE = "ElementDataFile"
# Fields that describe the array and its place, under the names that writers use. All others are tags.
STANDARD_FIELDS = frozenset(
    {
        "ObjectType",
        "ObjectSubType",
        "NDims",
        "DimSize",
        "BinaryData",
        "BinaryDataByteOrderMSB",
        "ElementByteOrderMSB",
        "CompressedData",
        "CompressedDataSize",
        "TransformMatrix",
        "Rotation",
        "Orientation",
        "Offset",
        "Position",
        "Origin",
        "CenterOfRotation",
        "AnatomicalOrientation",
        "ElementSpacing",
        "ElementSize",
        "ElementNumberOfChannels",
        "ElementType",
        "HeaderSize",
        "Modality",
        "ITK_InputFilterName",
        "ITK_original_direction",
        "ITK_original_spacing",
        DATA_FILE,
    }
)
MAX_LINE = 2**20


def read_meta_image(path: Path, is_label: bool = False) -> FileImage:
    """Read a MetaImage file.

    The fields of every frame of a sequence become tags. Text data and slices in several files are decoded by SimpleITK.

    Args:
        path: File with the suffix ``.mha`` or ``.mhd``.
        is_label: Whether colours are refused rather than converted to grey.

    Returns:
        The image.

    Raises:
        InputError: The file is damaged, its header does not fit its data, or it has unsupported axes or values.
    """
    with path.open("rb") as file:
        fields = _read_fields(path, file)
        start = file.tell()
    header = _Header(path, fields)
    number = header.integers("NDims", 1)[0]
    if not 2 <= number <= 5:
        raise InputError(f"{path} has NDims = {number}; expected 2 to 5 axes.")
    sizes = tuple(header.integers("DimSize", number))
    if min(sizes) < 1:
        raise InputError(f"{path} has DimSize = {fields['DimSize']}; expected positive numbers.")
    channels = header.integers("ElementNumberOfChannels", 1, default="1")[0]
    type_name = header.text("ElementType").removesuffix("_ARRAY")
    if type_name not in TYPES or channels < 1:
        raise InputError(
            f"{path} has ElementType = {type_name} with {channels} channels; expected one of {', '.join(TYPES)}."
        )
    is_big = header.flag("BinaryDataByteOrderMSB") or header.flag("ElementByteOrderMSB")
    dtype = np.dtype((">" if is_big else "<") + TYPES[type_name])
    shape = sizes if channels == 1 else (channels, *sizes)
    geometry = VolumeGeometry(
        spacing=header.numbers(("ElementSpacing", "ElementSize"), number),
        directions=_directions(path, header, number),
        origin=header.numbers(("Offset", "Position", "Origin"), number) or (0.0,) * number,
    )
    pixels = _read_pixels(path, header, dtype, shape, start)
    tags = {key: value for key, value in fields.items() if key not in STANDARD_FIELDS}
    return volume_image(path, pixels, 0 if channels > 1 else None, geometry, tags, is_label)


class _Header:
    """Fields of a header, with errors that name the file."""

    def __init__(self, path: Path, fields: dict[str, str]) -> None:
        self.path = path
        self.fields = fields

    def text(self, key: str) -> str:
        if key not in self.fields:
            raise InputError(f"{self.path} has no field {key} in its header; expected a MetaImage file.")
        return self.fields[key]

    def flag(self, key: str) -> bool:
        return self.fields.get(key, "").strip().lower() in ("true", "1", "yes")

    def integers(self, key: str, number: int, default: str | None = None) -> list[int]:
        text = self.fields.get(key, default) if default is not None else self.text(key)
        try:
            values = [int(word) for word in str(text).split()]
        except ValueError:
            values = []
        if len(values) != number:
            raise InputError(f"{self.path} has {key} = {text} in its header; expected {number} whole number(s).")
        return values

    def numbers(self, keys: tuple[str, ...], number: int) -> tuple[float, ...] | None:
        """Return the numbers of the first field that exists."""
        for key in keys:
            if key in self.fields:
                try:
                    values = tuple(float(word) for word in self.fields[key].split())
                except ValueError:
                    values = ()
                if len(values) != number or not np.isfinite(values).all():
                    raise InputError(
                        f"{self.path} has {key} = {self.fields[key]} in its header; expected {number} finite numbers."
                    )
                return values
        return None


def _read_fields(path: Path, file: Any) -> dict[str, str]:
    """Return the fields of a header, which ends with the name of the data file."""
    fields: dict[str, str] = {}
    while line := file.readline(MAX_LINE):
        if line.strip() == b"" and fields:
            continue
        key, separator, value = line.partition(b"=")
        if not separator or b"\0" in key:
            break
        name = key.decode("utf-8", "replace").strip()
        fields[name] = value.decode("utf-8", "replace").strip()
        if name == DATA_FILE:
            return fields
    if not {"NDims", "DimSize", "ObjectType"} & set(fields):
        raise InputError(f"{path} cannot be read as a MetaImage file: it has no header with fields such as NDims.")
    raise InputError(f"{path} is damaged: its header ends without {DATA_FILE}.")


def _directions(path: Path, header: _Header, number: int) -> NDArray[np.float64]:
    """Return the direction of every axis in the world, as columns."""
    values = header.numbers(("TransformMatrix", "Rotation", "Orientation"), number * number)
    return np.eye(number) if values is None else np.array(values).reshape(number, number).T


def _read_pixels(
    path: Path, header: _Header, dtype: np.dtype[Any], shape: tuple[int, ...], start: int
) -> NDArray[np.generic]:
    name = header.text(DATA_FILE)
    is_text = header.fields.get("BinaryData", "True").strip().lower() in ("false", "0", "no")
    if is_text or name.upper().startswith("LIST") or "%" in name:
        with library_errors(path, "a MetaImage file"):
            stored = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="MetaImageIO"))
        if stored.size != np.prod(shape, dtype=np.int64):
            raise InputError(f"{path} contains {stored.size} values, but its header has the sizes {shape}.")
        return stored.reshape(shape[::-1]).T
    is_local = name.upper() == "LOCAL"
    header_size = header.integers("HeaderSize", 1, default="0")[0]
    is_compressed = header.flag("CompressedData")
    source = path if is_local else path.parent / name
    if is_compressed and "CompressedDataSize" in header.fields:
        size = header.integers("CompressedDataSize", 1)[0]
        available = source.stat().st_size - (start if is_local else 0) if source.is_file() else size
        if size > available > 0 or size < 0:
            raise InputError(
                f"{path} is damaged: its header announces {size} bytes of compressed pixels, but {available} follow."
            )
    return RawData(
        source,
        dtype,
        shape,
        offset=start if is_local and header_size <= 0 else max(header_size, 0),
        compression="deflate" if is_compressed else "none",
        from_end=header_size == -1 and not is_local,
    ).read()
