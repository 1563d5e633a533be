"""Reading of NRRD files (``.nrrd``, ``.nhdr``), with the sequences of PLUS and 3D Slicer."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from cm_lightning.errors import InputError
from cm_lightning.io.file_image import FileImage, library_errors
from cm_lightning.io.raw_data import Compression, RawData
from cm_lightning.io.sequences import KINDS
from cm_lightning.io.volumes import VolumeGeometry, volume_image

TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
TYPE_OF_NAME = {name: code for code, names in TYPES.items() for name in names.split(", ")}
COMPRESSIONS: dict[str, Compression] = {
    "raw": "none",
    "gzip": "deflate",
    "gz": "deflate",
    "bzip2": "bzip2",
    "bz2": "bzip2",
}
TEXT_ENCODINGS = ("ascii", "text", "txt")
COLOUR_KINDS = ("rgb-color", "rgba-color", "vector", "3-color", "4-color", "2-vector", "3-vector", "4-vector")
SPACE_KINDS = ("domain", "space", "???", "none", "")
# Signs of the axes of a space relative to LPS.
SPACE_SIGNS = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
MAX_LINE = 2**24


def read_nrrd(path: Path, is_label: bool = False) -> FileImage:
    """Read an NRRD file.

    Key/value pairs become tags. An axis of the kind "list" contains the frames of a sequence, and becomes the last one.
    Text data are decoded by SimpleITK.

    Args:
        path: File with the suffix ``.nrrd``, or ``.nhdr`` with its pixels in another file.
        is_label: Whether colours are refused rather than converted to grey.

    Returns:
        The image.

    Raises:
        InputError: The file is damaged, its header does not fit its data, or it has unsupported axes or values.
    """
    with path.open("rb") as file:
        fields, tags = _read_header(path, file)
        start = file.tell()
    number = _integers(path, fields, "dimension", 1)[0]
    sizes = tuple(_integers(path, fields, "sizes", number))
    if min(sizes) < 1:
        raise InputError(f"{path} has the sizes {fields['sizes']}; expected positive numbers.")
    kinds = fields.get("kinds", "").lower().split() or ["domain"] * number
    if len(kinds) != number:
        raise InputError(f"{path} has {len(kinds)} kinds ({fields['kinds']}) for {number} axes.")
    is_list = [kind == "list" or kind == "time" for kind in kinds]
    colours = [axis for axis, kind in enumerate(kinds) if kind in COLOUR_KINDS]
    unknown = [k for axis, k in enumerate(kinds) if not is_list[axis] and k not in (*COLOUR_KINDS, *SPACE_KINDS)]
    if unknown or sum(is_list) > 1 or len(colours) > 1:
        raise InputError(
            f"{path} has axes of the kinds {fields['kinds']}; expected domain, and at most one list and one colour."
        )
    pixels = _read_pixels(path, fields, sizes, start)
    geometry = _geometry(path, fields, [kind in SPACE_KINDS for kind in kinds])
    if any(is_list):
        place = is_list.index(True)
        if place != number - 1:
            moved = np.moveaxis(pixels, place, -1)
            pixels = np.asfortranarray(moved)
            colours = [axis - (axis > place) for axis in colours]
        last = number - 1 - len(colours)
        tags = {re.sub(rf"^axis {place} ", f"axis {last} ", key): value for key, value in tags.items()}
        tags[KINDS] = " ".join(["domain"] * (len(geometry.directions.T)) + ["list"])
    return volume_image(path, pixels, colours[0] if colours else None, geometry, tags, is_label)


def _read_header(path: Path, file: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Return the fields and the key/value pairs of a header."""
    if not file.readline(16).startswith(b"NRRD000"):
        raise InputError(f"{path} cannot be read as an NRRD file: it does not begin with NRRD000.")
    fields: dict[str, str] = {}
    tags: dict[str, str] = {}
    while line := file.readline(MAX_LINE):
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text.startswith("#"):
            continue
        if not text:
            return fields, tags
        pair = re.match(r"(.*?)(:=|: ?)(.*)", text)
        if pair is None:
            raise InputError(f"{path} is damaged: its header has the line {text[:40]!r}; expected 'field: value'.")
        if pair[2] == ":=":
            tags[pair[1]] = re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match[1], match[1]), pair[3])
        else:
            key = pair[1].strip().lower()
            fields[key] = pair[3].strip()
            if key in ("data file", "datafile") and fields[key].upper().startswith("LIST"):
                return fields, tags
    if not {"data file", "datafile"} & set(fields):
        raise InputError(f"{path} is damaged: its header ends without an empty line before the pixels.")
    return fields, tags


def _integers(path: Path, fields: dict[str, str], key: str, number: int) -> list[int]:
    try:
        values = [int(word) for word in fields[key].split()]
    except (KeyError, ValueError):
        values = []
    if len(values) != number or number < 1:
        found = repr(fields[key]) if key in fields else "none"
        raise InputError(f"{path} has the field {key!r} {found} in its header; expected {number} whole number(s).")
    return values


def _read_pixels(path: Path, fields: dict[str, str], sizes: tuple[int, ...], start: int) -> NDArray[np.generic]:
    name = fields.get("type", "none")
    code = TYPE_OF_NAME.get(name.lower())
    encoding = fields.get("encoding", "none").lower()
    if code is None or encoding not in (*COMPRESSIONS, *TEXT_ENCODINGS):
        raise InputError(
            f"{path} has the type {name!r} and the encoding {encoding!r}; expected a type such as 'float' or 'uchar', "
            "and the encoding raw, gzip, bzip2 or ascii."
        )
    data_file = fields.get("data file", fields.get("datafile"))
    if data_file is not None and (data_file.upper().startswith("LIST") or "%" in data_file):
        raise InputError(f"{path} has its pixels in several files, which is not supported; expected one file.")
    if encoding in TEXT_ENCODINGS:
        with library_errors(path, "an NRRD file"):
            stored = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="NrrdImageIO"))
        if stored.size != np.prod(sizes, dtype=np.int64):
            raise InputError(f"{path} contains {stored.size} values, but its header has the sizes {sizes}.")
        return stored.reshape(sizes[::-1]).T
    order = ">" if fields.get("endian", "little").lower() == "big" else "<"
    skip = _integers(path, {"byte skip": "0", **fields}, "byte skip", 1)[0]
    if fields.get("line skip", "0") != "0" or (skip > 0 and encoding != "raw"):
        raise InputError(f"{path} skips lines or bytes before its pixels, which is not supported.")
    return RawData(
        path if data_file is None else path.parent / data_file,
        np.dtype(order + code),
        sizes,
        offset=(start if data_file is None else 0) + max(skip, 0),
        compression=COMPRESSIONS[encoding],
        from_end=skip == -1,
    ).read()


def _geometry(path: Path, fields: dict[str, str], is_space: list[bool]) -> VolumeGeometry:
    """Return the place of the space axes in the world (LPS)."""
    number = sum(is_space)
    space = fields.get("space", "").lower().removesuffix("-time")
    signs = np.array(SPACE_SIGNS.get(space, (1, 1, 1)), dtype=np.float64)
    if "space directions" in fields:
        words = re.findall(r"none|\([^)]*\)", fields["space directions"].lower())
        vectors = [_vector(path, word) for word in words if word != "none"]
        if len(words) != len(is_space) or len(vectors) < number or len({len(vector) for vector in vectors}) > 1:
            raise InputError(
                f"{path} has the space directions {fields['space directions']}; expected one vector per space axis."
            )
        # A list or time axis may have a vector as well, which is not a direction in space.
        vectors = [
            _vector(path, word) for word, inside in zip(words, is_space, strict=True) if inside and word != "none"
        ]
        if len(vectors) != number:
            raise InputError(f"{path} has {len(vectors)} space directions for {number} space axes.")
        steps = np.array([vector[:3] for vector in vectors], dtype=np.float64).T
        steps *= signs[: len(steps), None]
        spacing = np.linalg.norm(steps, axis=0)
        if not np.isfinite(spacing).all() or not (spacing > 0).all():
            raise InputError(
                f"{path} has the space directions {fields['space directions']}; expected finite vectors that are not 0."
            )
        origin = np.zeros(len(steps))
        if "space origin" in fields:
            origin = np.array(_vector(path, fields["space origin"])[:3])
        if len(origin) != len(steps) or not np.isfinite(origin).all():
            raise InputError(f"{path} has the space origin {fields['space origin']}; expected {len(steps)} numbers.")
        origin = origin * signs[: len(steps)]
        return VolumeGeometry(tuple(spacing.tolist()), steps / spacing, tuple(origin.tolist()))
    sizes: tuple[float, ...] | None = None
    if "spacings" in fields:
        try:
            values = [float(word) for word in fields["spacings"].split()]
            sizes = tuple(value for value, inside in zip(values, is_space, strict=True) if inside)
        except ValueError:
            sizes = (float("nan"),)
        if not (np.isfinite(sizes).all() and min(sizes) > 0):
            raise InputError(f"{path} has the spacings {fields['spacings']}; expected a positive number per axis.")
    return VolumeGeometry(sizes, np.eye(number), (0.0,) * number)


def _vector(path: Path, word: str) -> list[float]:
    try:
        return [float(part) for part in word.strip("() ").split(",")]
    except ValueError as error:
        raise InputError(f"{path} has the vector {word} in its header; expected numbers such as (1,0,0).") from error
