"""Insonified regions of cases, and thumbnails of them for the search for near-duplicates."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence import ProbeGeometry, ProbeName, find_geometry, linear_probe_domain
from cm_lightning.confidence.domain import DOUBTFUL_SCORE, Side
from cm_lightning.confidence.domain.orientation import lies_on_its_side
from cm_lightning.data.duplicates import insonified_part, thumbnail
from cm_lightning.errors import InputError
from cm_lightning.inspection.findings import Findings, Problem, Region
from cm_lightning.io import Axes
from cm_lightning.io.geometry import geometry_of_frames

Domain = ProbeName | Path


def search_region(findings: Findings, frames: NDArray[Any], aspect: float, domain: Domain) -> Findings:
    """Find the insonified region of a case, and examine the orientation of its frames.

    Args:
        findings: What is known about the case.
        frames: Its frames, ``(frames, depth, lateral)``.
        aspect: Ratio of the pixel width to the pixel height, in mm.
        domain: Insonified region, or a geometry file.

    Returns:
        Findings with the region and the thumbnail of its part of the middle frame.
    """
    case, middle = findings.case, frames[len(frames) // 2]
    problems = []
    try:
        geometry, side = _find(frames, aspect, domain, Axes(findings.axes))
    except InputError as error:
        return findings.with_problems(Problem("insonified region", str(error), True, case.id))
    except ValueError as error:
        text = f"{case.image}: {error}"
        return findings.with_problems(Problem("insonified region", text, True, case.id))
    if side != "top":
        text = (
            f"The probe seems to be at the {side} of the frames of {case.image}. If it is, change data.axes, since the "
            "first rows must be nearest to the probe."
        )
        problems.append(Problem("side of the probe", text, case=case.id))
    if geometry.warning is not None:
        problems.append(Problem("doubtful region", f"{case.image}: {geometry.warning}", case=case.id))
    inside = geometry.domain(middle)
    is_sideways = lies_on_its_side(frames, inside)
    if is_sideways:
        text = (
            f"The frames of {case.image} seem to lie on their side: judging by their texture, depth runs along "
            f"{findings.axes.split()[Axes(findings.axes).order[1]].lstrip('-')!r} of the axes {findings.axes!r}. If it "
            "does, exchange depth and lateral in data.axes."
        )
        problems.append(Problem("frames on their side", text, case=case.id))
    bands = linear_probe_domain(middle)
    region = Region(
        kind=geometry.kind if geometry.shape is None else geometry.shape.kind,
        score=geometry.score,
        coverage=float(inside.mean()),
        black_band_coverage=float(bands.mean()),
        black_band_overlap=float((inside & bands).sum() / max(1, (inside | bands).sum())),
        side=side,
        lies_on_its_side=is_sideways,
        middle=inside,
    )
    thumbnails = {**findings.thumbnails, str(domain): thumbnail(insonified_part(middle, inside))}
    return replace(findings, region=region, thumbnails=thumbnails).with_problems(*problems)


def frame_thumbnails(middle: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    """Return thumbnails of the middle frame of a case for the domains ``whole`` and ``linear``."""
    bands = linear_probe_domain(middle)
    return {"whole": thumbnail(middle), "linear": thumbnail(insonified_part(middle, bands))}


def _find(frames: NDArray[Any], aspect: float, domain: Domain, axes: Axes) -> tuple[ProbeGeometry, Side]:
    """Return the geometry as ``fit`` finds it, and the side at which the probe seems to be."""
    if isinstance(domain, Path):
        shape = (frames.shape[1], frames.shape[2])
        return ProbeGeometry("shape", geometry_of_frames(domain, axes, shape)), "top"
    geometry = find_geometry(frames, domain, aspect=aspect, up="auto")
    if geometry.up == "top":
        return geometry, "top"
    side = "top" if geometry.score < DOUBTFUL_SCORE else geometry.up
    return find_geometry(frames, domain, aspect=aspect, up="top"), side
