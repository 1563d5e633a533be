"""Reading of videos (MP4, AVI, MOV, MKV) with PyAV."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm_lightning.errors import InputError
from cm_lightning.io.file_image import FileImage, library_errors, picture_image
from cm_lightning.io.grey import label_channel, to_grey
from cm_lightning.io.memory import check_memory

# Frames that a decoder may lack at the end of a film, whose header may contain an edit list or a rounded duration.
MISSING_FRAMES = 1


def import_av(path: Path) -> ModuleType:
    """Return PyAV.

    Args:
        path: The video, for the error message.

    Returns:
        The module.

    Raises:
        InputError: It is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise InputError(f"The video {path} needs PyAV; install cm_lightning[video].") from error
    return av


def read_video(path: Path, is_label: bool = False) -> FileImage:
    """Read the first video stream of a file, whose colours become grey; see :func:`cm_lightning.io.grey.to_grey`.

    Args:
        path: The file.
        is_label: Whether colours are refused rather than converted to grey.

    Returns:
        The image, with rows and columns, and the frames last.

    Raises:
        InputError: PyAV is not installed, or the file is damaged or contains no video.
    """
    av = import_av(path)
    frames: list[NDArray[np.generic]] = []
    with library_errors(path, "a video"), av.open(str(path)) as container:
        if not container.streams.video:
            raise InputError(f"{path} contains no video stream; expected a video.")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate, announced = stream.average_rate, stream.frames
        if not announced and rate and container.duration:  # Matroska does not count frames
            announced = round(container.duration * 1e-6 * float(rate)) - MISSING_FRAMES
        elif container.format.name != "avi":
            announced -= MISSING_FRAMES
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise InputError(f"{path} is damaged: its frame {len(frames)} cannot be decoded completely.")
            pixels = _grey_frame(path, frame, is_label)
            if frames and pixels.shape != frames[0].shape:
                raise InputError(
                    f"{path} has frames of different sizes ({frames[0].shape} and {pixels.shape}); expected one size."
                )
            if not frames:
                check_memory(path, (max(announced, 1), *pixels.shape), pixels.dtype)
            frames.append(pixels)
    if not frames or len(frames) < announced:
        total = f"at least {announced} frames" if announced > 0 else "its frames"
        raise InputError(f"{path} is damaged: only {len(frames)} of {total} can be decoded.")
    array = np.moveaxis(np.stack(frames), 0, -1)
    return picture_image(array, frames_per_second=float(rate) if rate else None)


def _grey_frame(path: Path, frame: Any, is_label: bool) -> NDArray[np.generic]:
    if frame.format.name == "gray":
        pixels = frame.to_ndarray(format="gray")
    else:
        colour = frame.to_ndarray(format="rgb24")
        pixels = label_channel(path, colour) if is_label else to_grey(colour)
    quarter_turns = round(getattr(frame, "rotation", 0) / 90)  # of films of telephones, counter-clockwise
    return np.rot90(pixels, quarter_turns) if quarter_turns % 4 else pixels
