"""Reading of DICOM files: single images and loops of scanners, with their ultrasound regions."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence import Geometry, Rectangle
from cm_lightning.errors import InputError
from cm_lightning.io.file_image import FileImage, library_errors, picture_image
from cm_lightning.io.grey import label_channel, to_grey
from cm_lightning.io.memory import check_memory

MM_PER_CM = 10.0
# Values of Physical Units X Direction (0018,6024), Region Spatial Format (0018,6012), Region Data Type (0018,6014).
CENTIMETRES = 3
TWO_DIMENSIONAL = 1
TISSUE = 1


def dicom_region(dataset: Any) -> tuple[Geometry, tuple[int, int]] | None:
    """Return the region of tissue of a DICOM image.

    Args:
        dataset: Dataset of pydicom.

    Returns:
        Rectangle around the first two-dimensional region of tissue in the Sequence of Ultrasound Regions (0018,6011),
        whose corners are the first and last pixels, and the shape of the frames; None if there is no such region.
    """
    region = _tissue(dataset)
    if region is None:
        return None
    geometry = Rectangle(
        float(region.RegionLocationMinY0),
        float(region.RegionLocationMaxY1) + 1,
        float(region.RegionLocationMinX0),
        float(region.RegionLocationMaxX1) + 1,
    )
    return geometry, (int(dataset.Rows), int(dataset.Columns))


def read_dicom_header(path: Path) -> Any:
    """Read a DICOM file without its pixels.

    Args:
        path: The file.

    Returns:
        Dataset of pydicom.

    Raises:
        InputError: pydicom is not installed, or the file is not a DICOM file.
    """
    try:
        import pydicom
    except ImportError as error:
        raise InputError(f"Reading {path} needs pydicom; install cm_lightning[dicom].") from error
    with library_errors(path, "a DICOM file"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path, stop_before_pixels=True)


def read_dicom(path: Path, is_label: bool = False) -> FileImage:
    """Read the pictures of a DICOM file.

    MONOCHROME1, in which 0 is white, is inverted, and palettes and colours become grey; see
    :func:`cm_lightning.io.grey.to_grey`. Values are multiplied by the rescale slope. The pixel size is that of the
    region of tissue, or else the pixel spacing.

    Args:
        path: The file.
        is_label: Whether colours are refused rather than converted to grey.

    Returns:
        The image, with rows and columns, and the frames last.

    Raises:
        InputError: pydicom is not installed, or the file is damaged, contains no picture, or is compressed in a way
            that needs another plugin.
    """
    dataset = read_dicom_header(path)
    with library_errors(path, "a DICOM image"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("Rows", "Columns", "PhotometricInterpretation", "BitsStored"):
            if dataset.get(name) is None:
                raise InputError(f"{path} contains no picture: it has no {name}; expected an ultrasound image or loop.")
        _check_decoder(path, dataset)
        array = _read_frames(path, dataset, is_label)
        region = dicom_region(dataset)
        distance = _positive(dataset.get("SpacingBetweenSlices")) or _positive(dataset.get("SliceThickness")) or 1.0
        return picture_image(
            array,
            _pixel_size(dataset),
            distance,
            _frame_rate(dataset) if array.ndim == 3 else None,
            None if region is None else region[0],
        )


def _tissue(dataset: Any) -> Any:
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        if region.get("RegionSpatialFormat") == TWO_DIMENSIONAL and region.get("RegionDataType") == TISSUE:
            return region
    return None


def _read_frames(path: Path, dataset: Any, is_label: bool) -> NDArray[np.generic]:
    """Return the grey frames, one after another, so that the colours of only one of them are in memory."""
    from pydicom.pixels.processing import apply_color_lut, apply_rescale
    from pydicom.pixels.utils import iter_pixels

    photometric = str(dataset.PhotometricInterpretation)
    number = int(dataset.get("NumberOfFrames") or 1)
    stored: NDArray[np.generic] | None = None
    count = 0
    for frame in iter_pixels(path):
        if photometric == "PALETTE COLOR" and not is_label:
            frame = apply_color_lut(frame, dataset)
        if frame.ndim == 3:
            frame = label_channel(path, frame) if is_label else to_grey(frame)
        elif photometric == "MONOCHROME1" and not is_label:
            frame = _inverted(frame, dataset)
        if dataset.get("RescaleSlope", 1) != 1 or dataset.get("RescaleIntercept", 0) != 0:
            frame = apply_rescale(frame, dataset).astype(np.float32)
        if stored is None:
            check_memory(path, (number, *frame.shape), frame.dtype)
            stored = np.empty((number, *frame.shape), frame.dtype)
        stored[count] = frame
        count += 1
    if stored is None or count != number:
        raise InputError(f"{path} is damaged: it contains {count} of its {number} frames.")
    return stored[0] if number == 1 else np.moveaxis(stored, 0, -1)


def _check_decoder(path: Path, dataset: Any) -> None:
    """Check that the compression of the pixels is known and that its plugin is installed."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return
    try:
        is_available = get_decoder(syntax).is_available
    except NotImplementedError:
        is_available = False
    if not is_available:
        raise InputError(
            f"{path} is compressed with {syntax.name}, for which pydicom has no decoder here; install one of its "
            "plugins (for example pylibjpeg[all]), or decompress the file."
        )


def _inverted(frame: NDArray[Any], dataset: Any) -> NDArray[Any]:
    """Exchange black and white, within the range of the stored bits."""
    if dataset.get("PixelRepresentation", 0) == 1:
        return (-1 - frame).astype(frame.dtype)
    return (2 ** int(dataset.BitsStored) - 1 - frame).astype(frame.dtype)


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and number > 0 else None


def _pixel_size(dataset: Any) -> tuple[float, float] | None:
    """Return the height and width of a pixel in mm, or None if they are unknown."""
    region = _tissue(dataset)
    if region is not None and all(region.get(f"PhysicalUnits{axis}Direction") == CENTIMETRES for axis in "XY"):
        # Deltas are negative where an axis of the region points to the left or upwards.
        sizes = [abs(float(region.get(f"PhysicalDelta{axis}") or 0)) * MM_PER_CM for axis in "YX"]
        if _positive(sizes[0]) and _positive(sizes[1]):
            return sizes[0], sizes[1]
    spacing = dataset.get("PixelSpacing")
    if spacing is not None and len(spacing) == 2 and _positive(spacing[0]) and _positive(spacing[1]):
        return float(spacing[0]), float(spacing[1])
    return None


def _frame_rate(dataset: Any) -> float | None:
    """Return the frames per second, from the duration of a frame in ms if the file contains it."""
    duration = _positive(dataset.get("FrameTime"))
    if duration is None and dataset.get("FrameTimeVector") is not None:
        vector = [float(value) for value in dataset.FrameTimeVector][1:]
        duration = _positive(sum(vector) / len(vector)) if vector else None
    if duration is not None:
        return 1000 / duration
    return _positive(dataset.get("CineRate")) or _positive(dataset.get("RecommendedDisplayFrameRate"))
