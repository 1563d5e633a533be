"""Reading of NIfTI files: the header by nibabel, the pixels with verification."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from cm_lightning.errors import InputError
from cm_lightning.io.file_image import FileImage, library_errors
from cm_lightning.io.geometry_checks import check_geometry, sequence_axes
from cm_lightning.io.grey import label_channel, to_grey
from cm_lightning.io.raw_data import RawData

MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}
SECONDS_PER_UNIT = {"msec": 1e-3, "usec": 1e-6}
# Differences of voxel sizes between affine and header that are rounding.
SPACING_TOLERANCE = 1e-3


def read_nifti(path: Path, is_label: bool = False) -> FileImage:
    """Read a NIfTI-1 or NIfTI-2 file.

    The affine is the sform if it is set, otherwise the qform. Values are multiplied by the slope of the header and
    shifted by its intercept. Units of m and µm become mm. Of files with four or more axes, only sequences of pictures
    are supported, ``(x, y, 1, time)``, which become ``(x, y, time)``.

    Args:
        path: File with the suffix ``.nii`` or ``.nii.gz``.
        is_label: Whether colours are refused rather than converted to grey.

    Returns:
        The image.

    Raises:
        InputError: The file is damaged, or has unsupported axes or values.
    """
    with library_errors(path, "a NIfTI file"):
        image = nibabel.load(path)
        header: Any = image.header
        if not isinstance(header, nibabel.Nifti1Header):
            raise InputError(f"{path} is not a NIfTI file; expected one, since its suffix is {path.suffix}.")
        # Loading clears the offset, slope and intercept of the header; the proxy of the pixels keeps them.
        proxy: Any = image.dataobj
        dtype, shape = np.dtype(proxy.dtype), tuple(int(side) for side in proxy.shape)
        slope, intercept, offset = float(proxy.slope), float(proxy.inter), int(proxy.offset)
        zooms = [float(zoom) for zoom in header.get_zooms()]
        affine = np.array(image.affine, dtype=np.float64)
        units = header.get_xyzt_units()
        is_world_known = bool(header["sform_code"] > 0 or header["qform_code"] > 0)
    kept = sequence_axes(path, shape)
    is_compressed = path.name.lower().endswith(".gz")
    stored = RawData(
        path,
        dtype,
        shape,
        offset,
        compression="deflate" if is_compressed else "none",
        is_whole_file_compressed=is_compressed,
    ).read()
    array = _scaled(path, _plain(path, stored, is_label), slope, intercept)
    scale = MM_PER_UNIT.get(units[0], 1.0)
    sizes = [zoom if zoom != 0 or side > 1 else 1.0 for zoom, side in zip(zooms, shape, strict=True)]
    if is_world_known:
        in_affine = np.linalg.norm(affine[:3, :3], axis=0)[: len(sizes)]
        if not np.allclose(in_affine, sizes[: len(in_affine)], rtol=SPACING_TOLERANCE):
            sizes[: len(in_affine)] = in_affine.tolist()
    seconds = None
    if len(shape) == 4 and len(kept) == 3:
        seconds = sizes[3] * SECONDS_PER_UNIT.get(units[1], 1.0)
        sizes[3] = sizes[2]  # the frames of a sequence are no further apart than one slice
    affine[:3] *= scale
    spacing = tuple(sizes[axis] * scale for axis in kept)
    check_geometry(path, spacing, affine)
    return FileImage(
        array.reshape([shape[axis] for axis in kept], order="F"),
        spacing,
        affine,
        frames_per_second=1 / seconds if seconds and np.isfinite(seconds) and seconds > 0 else None,
    )


def _plain(path: Path, stored: NDArray[Any], is_label: bool) -> NDArray[Any]:
    """Return single numbers, from colours if necessary."""
    if stored.dtype.names is not None:  # RGB24, RGBA32
        colour = stored.T.view(np.uint8).reshape(*stored.shape[::-1], len(stored.dtype.names))
        return (label_channel(path, colour) if is_label else to_grey(colour)).T
    if stored.dtype.kind not in "biuf" or stored.dtype.itemsize > 8:
        raise InputError(f"{path} contains values of type {stored.dtype}; expected real numbers of at most 64 bits.")
    return stored


def _scaled(path: Path, array: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """Apply slope and intercept; with at most 16 bits, float32 is sufficient."""
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise InputError(f"{path} has the slope {slope} and the intercept {intercept}; expected finite numbers.")
    if slope == 1 and intercept == 0:
        return array
    dtype = np.float64 if array.dtype.itemsize > 2 and array.dtype != np.float32 else np.float32
    scaled = np.multiply(array, dtype(slope), dtype=dtype)
    scaled += dtype(intercept)
    return scaled
