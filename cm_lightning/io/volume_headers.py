"""Headers of the volumes that are written: NIfTI, MetaImage and NRRD."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from cm_lightning.io.metaimage import DATA_FILE, STANDARD_FIELDS
from cm_lightning.io.metaimage import TYPES as META_IMAGE_TYPES
from cm_lightning.io.sequences import KINDS
from cm_lightning.io.volumes import LPS_TO_RAS

COMPRESSED_SIZE = "CompressedDataSize = "
# Digits that are reserved for the compressed size, which is only known at the end.
SIZE_DIGITS = 20
NRRD_TYPES = {"uint8": "uint8", "uint16": "uint16", "float32": "float"}
MAX_NIFTI1_SIDE = 2**15 - 1
# Codes of NIfTI for the meaning of an affine.
ALIGNED, UNKNOWN = 2, 0


@dataclass(frozen=True)
class VolumeDescription:
    """What the header of a volume says.

    Attributes:
        shape: Number of voxels along every axis, the fastest axis first.
        dtype: Type of the values.
        affine: Affine matrix from voxel to world coordinates (RAS, in mm), ``(4, 4)``.
        is_spacing_known: Whether the affine contains the voxel size, rather than ones.
        frames_per_second: Frame rate of a sequence; None if it is unknown.
        tags: Other fields.
        display_range: Values that viewers show as black and as white; None leaves the choice to them.
        slope: Factor of the stored values, for formats that have one.
        is_compressed: Whether the voxels are compressed, for formats that allow both.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    affine: NDArray[np.float64]
    is_spacing_known: bool = True
    frames_per_second: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    display_range: tuple[float, float] | None = None
    slope: float = 1.0
    is_compressed: bool = False

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Voxel size along the three space axes."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def lps(self) -> NDArray[np.float64]:
        """Affine matrix to the world of ITK (LPS)."""
        return LPS_TO_RAS @ self.affine

    def directions(self, number: int) -> NDArray[np.float64]:
        """Return the unit vectors of the first axes in the world (LPS), as columns of a square matrix."""
        directions = (self.lps[:3, :3] / self.spacing)[:number, :number]
        # A picture may be oblique in three dimensions, which two dimensions cannot express.
        return directions if abs(np.linalg.det(directions)) > 1e-6 else np.eye(number)


def nifti_header(volume: VolumeDescription) -> bytes:
    """Return the header of a NIfTI file. Sequences of pictures with a frame rate are ``(x, y, 1, time)``."""
    is_timed = volume.frames_per_second is not None and len(volume.shape) == 3
    shape = (*volume.shape[:2], 1, volume.shape[2]) if is_timed else volume.shape
    is_large = max(shape) > MAX_NIFTI1_SIDE
    header: Any = nibabel.Nifti2Header() if is_large else nibabel.Nifti1Header()
    header.set_data_dtype(volume.dtype)
    header.set_data_shape(shape)
    header.set_qform(volume.affine, UNKNOWN)
    header.set_sform(volume.affine, ALIGNED)
    header.set_xyzt_units("mm", "sec")
    if is_timed:
        assert volume.frames_per_second is not None
        header["pixdim"][4] = 1 / volume.frames_per_second
    header.set_slope_inter(volume.slope, 0)
    if volume.display_range is not None:
        header["cal_min"], header["cal_max"] = volume.display_range
    header["vox_offset"] = header.single_vox_offset
    buffer = io.BytesIO()
    header.write_to(buffer)
    return buffer.getvalue().ljust(header.single_vox_offset, b"\0")


def meta_image_header(volume: VolumeDescription) -> bytes:
    """Return the header of a MetaImage file, with a gap for the compressed size if it is compressed."""
    number = len(volume.shape)
    compressed = ["CompressedData = True", COMPRESSED_SIZE + " " * SIZE_DIGITS]
    lines = [
        "ObjectType = Image",
        f"NDims = {number}",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        *(compressed if volume.is_compressed else ["CompressedData = False"]),
        f"TransformMatrix = {_numbers(volume.directions(number).T)}",
        f"Offset = {_numbers(volume.lps[:number, 3])}",
        f"CenterOfRotation = {_numbers(np.zeros(number))}",
    ]
    if volume.is_spacing_known:
        lines.append(f"ElementSpacing = {_numbers(volume.spacing[:number])}")
    for key, value in volume.tags.items():
        if re.fullmatch(r"[\w.-]+", key) and key not in STANDARD_FIELDS:
            lines.append(f"{key} = {' '.join(value.split())}")
    names = {code: name for name, code in reversed(META_IMAGE_TYPES.items())}
    lines += [
        f"DimSize = {' '.join(str(side) for side in volume.shape)}",
        f"ElementType = {names[volume.dtype.str[1:]]}",
        f"{DATA_FILE} = LOCAL",
    ]
    return ("\n".join(lines) + "\n").encode()


def nrrd_header(volume: VolumeDescription) -> bytes:
    """Return the header of an NRRD file; the frames of a tracked sequence are a list of volumes."""
    number = min(len(volume.shape), 3)
    is_list = volume.tags.get(KINDS, "").endswith("list") and number == 3
    shape = (*volume.shape[:2], 1, volume.shape[2]) if is_list else volume.shape
    lines = [
        "NRRD0005",
        f"type: {NRRD_TYPES[volume.dtype.name]}",
        f"dimension: {len(shape)}",
        f"sizes: {' '.join(str(side) for side in shape)}",
        f"kinds: {' '.join(['domain'] * number + ['list'] * is_list)}",
        "endian: little",
        f"encoding: {'gzip' if volume.is_compressed else 'raw'}",
    ]
    if volume.is_spacing_known:
        steps = volume.directions(number) * volume.spacing[:number]
        vectors = [f"({_numbers(step, ',')})" for step in steps.T] + ["none"] * is_list
        lines += [
            "space: left-posterior-superior" if number == 3 else f"space dimension: {number}",
            f"space directions: {' '.join(vectors)}",
            f"space origin: ({_numbers(volume.lps[:number, 3], ',')})",
        ]
    for key, value in volume.tags.items():
        if key != KINDS or not is_list:
            escaped = value.replace("\\", "\\\\").replace("\n", "\\n")
            lines.append(f"{key}:={escaped}")
    # The fields that describe the space precede those that depend on them.
    lines[3:] = sorted(lines[3:], key=lambda line: not line.startswith("space: ") and "dimension" not in line)
    return ("\n".join(lines) + "\n\n").encode()


def _numbers(values: NDArray[np.float64], separator: str = " ") -> str:
    """Return numbers that are read back exactly, without negative zeros."""
    return separator.join(f"{value + 0.0:.17g}" for value in values.ravel().tolist())
