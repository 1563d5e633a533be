"""What the fields of sequences of PLUS and 3D Slicer say about axes and frame rate."""

import re
from collections.abc import Mapping

ORIENTATION = "UltrasoundImageOrientation"
# Key of the kinds of the axes, as PLUS writes it into MetaImage files.
KINDS = "Kinds"
# Letters of PLUS for the direction of an axis: the marked or unmarked side of the probe, far from or near to the probe,
# ascending or descending. The sides and the order of frames do not matter for confidence maps.
AXIS_OF_LETTER = {
    "M": "lateral",
    "U": "lateral",
    "F": "depth",
    "N": "-depth",
    "A": "elevation",
    "D": "elevation",
}


def orientation_axes(tags: Mapping[str, str], number: int) -> str | None:
    """Return the axes that the field ``UltrasoundImageOrientation`` of PLUS states, for example ``MFA``.

    Args:
        tags: Fields of the file.
        number: Number of the axes of the array. The letter for the elevation may be missing.

    Returns:
        Axes in the notation of :class:`cm_lightning.io.Axes`; None if the field is missing or is not valid.
    """
    letters = tags.get(ORIENTATION, "").strip().upper()
    words = [AXIS_OF_LETTER.get(letter, "") for letter in letters[:number]]
    if number == 3 and len(words) == 2:
        words.append("elevation")
    expected = ["depth", "elevation", "lateral"][: 3 if number == 3 else None]
    if number == 2:
        expected.remove("elevation")
    return " ".join(words) if sorted(word.lstrip("-") for word in words) == expected else None


def axes_orientation(axes: str) -> str:
    """Return the value of ``UltrasoundImageOrientation`` for axes, the reverse of :func:`orientation_axes`."""
    letters = {"lateral": "M", "depth": "F", "-depth": "N"}
    words = [word if word == "-depth" else word.lstrip("-") for word in axes.split()]
    return "".join(letters.get(word, "A") for word in words)


def timestamps(frames: int, frames_per_second: float) -> dict[str, str]:
    """Return fields of PLUS with the time of every frame in seconds."""
    return {f"Seq_Frame{index:04d}_Timestamp": repr(index / frames_per_second) for index in range(frames)}


def frame_rate(tags: Mapping[str, str], frames: int) -> float | None:
    """Return the mean frame rate of a sequence from its timestamps.

    Args:
        tags: Fields of the file: ``Seq_Frame0000_Timestamp`` of PLUS, or ``axis 3 index values`` of 3D Slicer, in
            seconds.
        frames: Number of frames.

    Returns:
        Frames per second; None if the timestamps are missing or do not increase.
    """
    if frames < 2:
        return None
    try:
        times = [float(tags[f"Seq_Frame{index:04d}_Timestamp"]) for index in (0, frames - 1)]
    except (KeyError, ValueError):
        times = _slicer_times(tags, frames)
    duration = times[-1] - times[0] if len(times) > 1 else 0.0
    return (frames - 1) / duration if 0 < duration < float("inf") else None


def _slicer_times(tags: Mapping[str, str], frames: int) -> list[float]:
    for key, value in tags.items():
        axis = re.fullmatch(r"(axis \d+ )index values", key)
        if axis and tags.get(f"{axis[1]}index type") == "time" and tags.get(f"{axis[1]}index unit", "s") == "s":
            try:
                times = [float(word) for word in value.split()]
            except ValueError:
                return []
            return times if len(times) == frames else []
    return []
