"""Measurement of a case: its files are read once, and what they contain is kept as numbers and a picture."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm_lightning.data.cases import Case
from cm_lightning.data.classes import whole_numbers
from cm_lightning.data.frames import to_frames
from cm_lightning.errors import InputError
from cm_lightning.inspection.findings import Findings, Picture, Problem
from cm_lightning.inspection.regions import Domain, frame_thumbnails, search_region
from cm_lightning.inspection.settings import DataSettings
from cm_lightning.inspection.statistics import MAX_VALUES, count_values, measure_intensities
from cm_lightning.io import PICTURE_AXES, VOLUME_AXES, Axes, FileImage, align_label, read_image

# Longest side of a picture for the page.
PICTURE_SIDE = 320


@dataclass(frozen=True)
class Measuring:
    """How cases are measured.

    Attributes:
        settings: Settings of a configuration that are checked; None if a configuration is proposed.
        axes: Axes of files that do not state theirs; the usual ones by default.
        is_region_searched: Whether the insonified region is searched.
        is_shown: Whether a picture is kept, even without a problem.
    """

    settings: DataSettings | None = None
    axes: str | None = None
    is_region_searched: bool = True
    is_shown: bool = True


def measure_case(case: Case, how: Measuring) -> Findings:
    """Read and measure a case. Invalid files are problems, not errors.

    Args:
        case: The case.
        how: What is measured.

    Returns:
        The findings.
    """
    try:
        image = read_image(case.image)
    except InputError as error:
        return Findings(case, (Problem("unreadable image", str(error), True, case.id),))
    findings = _measure_image(case, image, how)
    label, findings = _measure_label(findings, image, how.settings)
    if not findings.is_readable or findings.intensities is None or not findings.intensities.is_finite:
        return findings
    axes = Axes(findings.axes)
    array = axes.from_file(image.array)
    frames = to_frames(array) if array.ndim == 3 else array[None]
    depth, lateral = axes.order[:2]
    aspect = 1.0 if findings.spacing is None else findings.spacing[lateral] / findings.spacing[depth]
    domain: Domain = "auto" if how.settings is None else how.settings.domain
    if how.is_region_searched and findings.intensities.minimum < findings.intensities.maximum:
        findings = search_region(findings, frames, aspect, domain)
    if not how.is_shown and not findings.problems:
        return findings
    return _with_picture(findings, frames, None if label is None else axes.from_file(label), aspect)


def _measure_image(case: Case, image: FileImage, how: Measuring) -> Findings:
    settings, array, shape = how.settings, image.array, image.array.shape
    problems: list[Problem] = []

    def add(kind: str, text: str, is_fatal: bool = True) -> None:
        problems.append(Problem(kind, text, is_fatal, case.id))

    if array.ndim not in VOLUME_AXES or array.size == 0:
        add("number of axes", f"{case.image} has the shape {shape}; expected a frame or a volume.")
        return Findings(case, tuple(problems), shape=shape, dtype=str(array.dtype))
    if np.issubdtype(array.dtype, np.complexfloating):
        add("complex numbers", f"{case.image} contains complex numbers; expected real intensities.")
        return Findings(case, tuple(problems), shape=shape, dtype=str(array.dtype))
    usual = (PICTURE_AXES if image.rows_first else VOLUME_AXES)[array.ndim]
    assumed = how.axes if how.axes is not None and len(how.axes.split()) == array.ndim else usual
    axes = image.axes or assumed
    if settings is not None:
        if len(settings.axes.split()) == array.ndim:
            axes = settings.axes
        else:
            text = f"{case.image} has {array.ndim} axes (shape {shape}); expected {settings.axes!r} (data.axes)."
            add("number of axes", text)
    intensities, digest = measure_intensities(array)
    if not intensities.is_finite:
        add("not finite", f"{case.image} contains NaN or infinite values; expected finite intensities.")
    elif intensities.minimum == intensities.maximum:
        add("constant image", f"{case.image} is constant ({intensities.minimum:g}); expected an ultrasound image.")
    spacing = image.spacing if settings is None or settings.spacing_mm is None else settings.spacing_mm
    if spacing is not None and len(spacing) != array.ndim:
        add("number of axes", f"data.spacing_mm has {len(spacing)} values, but {case.image} has {array.ndim} axes.")
        spacing = image.spacing
    order = Axes(axes).from_file(array)
    middle = order if order.ndim == 2 else order[:, :, order.shape[2] // 2]
    return Findings(
        case,
        tuple(problems),
        shape=shape,
        dtype=str(array.dtype),
        spacing=spacing,
        axes=axes,
        states_axes=image.axes is not None,
        intensities=intensities,
        digest=digest,
        thumbnails=frame_thumbnails(middle) if intensities.is_finite else {},
    )


def _measure_label(
    findings: Findings, image: FileImage, settings: DataSettings | None
) -> tuple[NDArray[Any] | None, Findings]:
    """Return the label in the order of the file axes, or None, and the findings with what the label contains."""
    case = findings.case
    path = case.label
    if path is None or not path.is_file():
        text = f"The image {case.image} has no label; expected {path}."
        return None, findings.with_problems(Problem("image without label", text, True, case.id))
    try:
        label = read_image(path, is_label=True)
    except InputError as error:
        return None, findings.with_problems(Problem("unreadable label", str(error), True, case.id))
    problems: list[Problem] = []
    try:
        alignment = align_label(label, image, path, case.image)
    except InputError as error:
        return None, findings.with_problems(Problem("grid of the label", str(error), True, case.id))
    if not alignment.is_identity:
        text = (
            f"{path} stores its axes in another order or direction than its image {case.image}, as both files state; "
            "fit brings it to the grid of the image."
        )
        problems.append(Problem("orientation of the label", text, case=case.id))
    array = _merged(label.array, path, {} if settings is None else settings.merged)
    values = count_values(array)
    if values is None:
        text = (
            f"{path} has more than {MAX_VALUES} different values; expected few whole numbers. Lossy compression such "
            "as JPEG changes labels."
        )
        problems.append(Problem("values of the label", text, True, case.id))
        return None, findings.with_problems(*problems)
    fractions = [value for value in values if value != value // 1]
    if fractions:
        text = (
            f"{path} contains {len(fractions)} values that are no whole numbers, such as {fractions[0]!r}; expected "
            "whole numbers: save the label with integers."
        )
        problems.append(Problem("fractional values", text, True, case.id))
    if settings is not None:
        unknown = sorted(set(values) - {0, *settings.classes.values(), *fractions})
        if unknown:
            known = ", ".join(f"{value} for {name}" for name, value in settings.classes.items())
            text = f"{path} contains the unknown values {unknown}; expected 0 for background and {known}."
            problems.append(Problem("unknown values", text, True, case.id))
    if set(values) <= {0}:
        problems.append(Problem("empty label", f"{path} contains no class.", case=case.id))
    return alignment.apply(array), replace(findings, values=values).with_problems(*problems)


def _merged(label: NDArray[Any], path: Path, merged: Mapping[int, int]) -> NDArray[Any]:
    """Return a label as training sees it: almost whole numbers rounded, and the values of a class replaced by one."""
    with suppress(InputError):  # fractions are a problem that is described
        label = whole_numbers(label, path)
    for value, first in merged.items():
        if value != first:
            label = np.where(label == value, np.asarray(first, label.dtype), label)
    return label


def _with_picture(findings: Findings, frames: NDArray[Any], label: NDArray[Any] | None, aspect: float) -> Findings:
    """Keep the frame with the most labelled pixels, or the middle one."""
    index = len(frames) // 2
    labels = None if label is None else (to_frames(label) if label.ndim == 3 else label[None])
    if labels is not None:
        sizes = Counter({number: int(np.count_nonzero(part)) for number, part in enumerate(labels)})
        best, size = sizes.most_common(1)[0]
        index = best if size else index
    # Every n-th pixel is enough for a small picture, and the region is only known for the whole frame.
    step = max(1, min(frames.shape[1:]) // PICTURE_SIDE, max(frames.shape[1:]) // (2 * PICTURE_SIDE))
    thin = (slice(None, None, step), slice(None, None, step))
    picture = Picture(
        frames[index][thin].copy(),
        None if labels is None else labels[index][thin].copy(),
        None if findings.region is None else findings.region.middle[thin].copy(),
        aspect,
    )
    return replace(findings, picture=picture)
