"""``confmap``: compute the confidence maps of image files."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cm_lightning.parsing import run_function


def confmap(
    inputs: list[Path],
    *,
    output: Path,
    domain: str = "auto",
    up: Literal["auto", "top", "bottom", "left", "right"] = "top",
    threshold: float = 0.0,
    axes: str | None = None,
    format: Literal["png", "tif", "nii", "nii.gz", "mha", "nrrd", "npz"] | None = None,
    dtype: Literal["uint8", "uint16", "float32"] | None = None,
    preview: bool = False,
    certify: bool = False,
    overwrite: bool = False,
    formulation: Literal["reference", "paper", "realtime"] = "reference",
    alpha: float = 0.5,
    beta: float = 100.0,
    gamma: float = 0.05,
    normalise: Literal["frame", "fixed"] = "frame",
    sink: Literal["all", "mid", "min"] = "all",
    mode: Literal["B", "RF"] = "B",
    tolerance: float = 1e-3,
    method: Literal["cg", "direct"] = "cg",
    max_batch: int | None = None,
    backend: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Compute the confidence maps of pictures, sequences, videos and volumes.

    Every map is written in the format and with the geometry of its file, and confmap.csv lists the insonified region,
    mean confidence and error of every file. Files that were finished by an earlier call with the same settings are
    skipped. If a file fails, the others go on, and the status is 1.

    Args:
        inputs: Files, and folders that are searched with their subfolders.
        output: Folder of the maps.
        domain: Insonified region: auto for that of any screen, whole for frames without background, linear for a
            rectangle inside a black background, convex for a fan before a black background, or a geometry file.
        up: Side of the frames at which the probe is; auto determines it from the image.
        threshold: Maximum intensity of the background, for the domains linear and convex.
        axes: Axes of the files in their order, for example "lateral depth elevation"; a minus sign reverses an axis.
            By default those that the file states, or else "depth lateral" and "lateral depth elevation".
        format: Format of the maps. By default, volumes and TIFF files keep their format, other pictures become PNG, and
            other sequences MetaImage.
        dtype: Type of the maps. Integers are fractions of their maximum. By default uint16 for PNG, otherwise float32.
        preview: Whether to draw each frame (for sequences, up to 20) with its region and map.
        certify: Whether to compute proven bounds of the errors.
        overwrite: Whether to compute maps again that were finished by an earlier call.
        formulation: Formula of the edge weights.
        alpha: Attenuation coefficient, relative to the depth of the region.
        beta: Sensitivity to intensity differences.
        gamma: Penalty of horizontal and diagonal edges.
        normalise: Whether intensities are rescaled by the range of each frame, or have a fixed scale from 0 to 1.
        sink: Choice of the pixels at which random walks end, among the last pixels of all columns.
        mode: B for B-mode images, RF for radio-frequency lines.
        tolerance: Maximum error of a map.
        method: Conjugate gradients, or a direct solution in float64.
        max_batch: Maximum number of frames that are solved at once.
        backend: Device on which maps are computed. With auto, this is the CPU, as files are read there.
    """
    from cm_lightning.confidence import ConfidenceMapSolver
    from cm_lightning.confmap import MapSettings, map_files
    from cm_lightning.errors import UsageError

    names = ("whole", "linear", "convex", "auto")
    if domain not in names and not Path(domain).suffix:
        raise UsageError(f"domain must be one of {', '.join(names)}, or a geometry file; found {domain!r}.")
    try:
        solver = ConfidenceMapSolver(
            alpha, beta, gamma, formulation, normalise, sink, mode, tolerance, method, max_batch, backend
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    region: str | Path = domain if domain in names else Path(domain)
    settings = MapSettings(solver, region, up, threshold, axes, format, dtype, certify, preview)  # type: ignore[arg-type]
    failures = map_files(inputs, output, settings, overwrite)
    print(f"The maps are in {output}, and confmap.csv describes them.")
    if failures:
        print(f"{len(failures)} files failed:", *failures, sep="\n  ", file=sys.stderr)
        sys.exit(1)


def run(argv: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        argv: Command line after ``confmap``.
    """
    run_function("confmap", confmap, argv)
