"""Confidence and the variability of raters who marked the rows of boundaries instead of drawing masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cm_lightning.confidence import ConfidenceMapSolver, find_geometry
from cm_lightning.data.duplicates import insonified_part
from cm_lightning.data.rater_rows import read_rater_rows
from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.evaluation.page import Page
from cm_lightning.evaluation.report_table import Cell, ReportTable
from cm_lightning.io import image_files, read_image, stem
from cm_lightning.runs.versions import versions
from cm_lightning.statistics.means import mean_interval
from cm_lightning.statistics.ranks import mid_ranks
from cm_lightning.statistics.signed_rank import signed_rank_p
from cm_lightning.uncertainty.agreement import correlation
from cm_lightning.variability.lines import line_properties
from cm_lightning.writing import write_table

Array = NDArray[np.floating[Any]]

# Width of the range of columns around a position, as a fraction of the width of the insonified region.
WINDOW = 0.05
# Maps of other subjects with which each image is compared.
OTHERS = 10
# Smallest number of points for a correlation within a sequence.
POINTS = 8


class MarkedFrame(NamedTuple):
    """Insonified part of an image.

    Attributes:
        image: Intensities, ``(depth, lateral)``.
        confidence: Confidence map of this part, ``(depth, lateral)``.
        top: Row of the picture at which the part begins.
        left: Column of the picture at which the part begins.
    """

    image: Array
    confidence: Array
    top: int
    left: int


def read_frames(
    folders: Sequence[Path], sequences: Mapping[str, Sequence[str]], solver: ConfidenceMapSolver
) -> dict[str, MarkedFrame]:
    """Read images, find their insonified regions and compute their confidence maps.

    Args:
        folders: Folders of the images.
        sequences: Names of the files without suffix, by sequence. The images of a sequence have the same region.
        solver: Solver of the maps.

    Returns:
        The insonified part of each case.

    Raises:
        MissingInputError: A case has no image.
        InputError: An image is not a single frame, or the images of a sequence differ in size.
    """
    files = {stem(path): path for folder in folders if folder.is_dir() for path in image_files(folder)}
    cases = [case for part in sequences.values() for case in part]
    missing = [case for case in cases if case not in files]
    if missing:
        raise MissingInputError(
            f"There is no image of the case {missing[0]} ({len(missing)} of {len(cases)} are missing) in "
            f"{', '.join(map(str, folders))}; expected a file with this name."
        )
    frames = {}
    for sequence, part in sequences.items():
        pictures = [read_image(files[case]).array for case in part]
        shapes = sorted({picture.shape for picture in pictures})
        if len(shapes) > 1 or len(shapes[0]) != 2:
            raise InputError(
                f"The images of the sequence {sequence} have the shapes {', '.join(map(str, shapes))}; expected single "
                "grey frames of the same size."
            )
        stack = np.stack(pictures)
        geometry = find_geometry(stack, "auto")
        maps = np.asarray(solver(stack, *geometry.solver_masks(stack)))
        inside = np.asarray(geometry.domain(stack[0]))
        top, left = (int(np.flatnonzero(inside.any(axis=axis))[0]) for axis in (1, 0))
        for case, picture, confidence in zip(part, stack, maps, strict=True):
            image = insonified_part(picture, inside).astype(np.float32)
            frames[case] = MarkedFrame(image, insonified_part(confidence, inside).astype(np.float32), top, left)
    return frames


def rater_spread(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute the variability of the raters at every boundary.

    Args:
        rows: Rows by :func:`cm_lightning.data.rater_rows.read_rater_rows`.

    Returns:
        Table with a line per boundary of a case (and column): mean ``row``, ``sd`` of the raters in pixels (with one
        degree of freedom less than raters), ``sd_unbiased`` after the mean deviation of each rater at this kind of
        boundary was removed (mean over subjects), and ``farthest``, the largest distance of a rater from the mean of
        the others. Boundaries with a single rater are left out.
    """
    place = ["case", "subject", "sequence", "boundary", "column"]
    groups = rows.groupby(place, dropna=False, sort=False)["row"]
    table = rows.assign(deviation=rows["row"] - groups.transform("mean"), raters=groups.transform("size"))
    table = table[table["raters"] >= 2].copy()
    by_subject = table.groupby(["boundary", "rater", "subject"])["deviation"].mean()
    bias = by_subject.groupby(["boundary", "rater"]).mean().rename("bias").reset_index()
    table = table.merge(bias, on=["boundary", "rater"])
    groups = table.groupby(place, dropna=False, sort=False)["row"]
    table["corrected"] = table["row"] - table["bias"]
    others = (groups.transform("sum") - table["row"]) / (table["raters"] - 1)
    table["distance"] = (table["row"] - others).abs()
    boundaries = table.groupby(place, dropna=False, sort=False)
    return boundaries.agg(
        row=("row", "mean"), sd=("row", "std"), sd_unbiased=("corrected", "std"), farthest=("distance", "max")
    ).reset_index()


def cases_by_sequence(spread: pd.DataFrame) -> dict[str, list[str]]:
    """Return the cases of every sequence of a table by :func:`rater_spread`."""
    return {str(name): list(part["case"].unique()) for name, part in spread.groupby("sequence", sort=False)}


def columns_at(width: int, position: float | None) -> slice:
    """Return the columns around a position.

    Args:
        width: Number of columns of the insonified region.
        position: Position from 0 (left edge) to 1 (right edge); None for all columns.

    Returns:
        Range of columns, as wide as the window also at the edges.
    """
    if position is None:
        return slice(0, width)
    size = max(1, round(WINDOW * width))
    start = int(np.clip(round(position * width - size / 2), 0, width - size))
    return slice(start, start + size)


def measure_points(spread: pd.DataFrame, frames: dict[str, MarkedFrame], position: float | None = None) -> pd.DataFrame:
    """Measure the image and its map at every boundary.

    Args:
        spread: Table by :func:`rater_spread`.
        frames: Insonified parts by case.
        position: Position from 0 to 1 at which raters marked the rows, for boundaries without a column; None for the
            mean over all columns.

    Returns:
        The table with the columns of :func:`cm_lightning.variability.lines.line_properties`, and ``other_0`` to
        ``other_9``, the confidence at the same relative place in maps of other subjects (NaN with one subject).
    """
    generator = np.random.default_rng(0)
    subjects = spread.drop_duplicates("case").set_index("case")["subject"]
    donors: dict[str, list[str]] = {}
    for case, own in subjects.items():
        others = [name for name in subjects.index if subjects[name] != own]
        donors[str(case)] = list(generator.choice(others, OTHERS)) if others else []
    lines = []
    for point in spread.to_dict("records"):
        frame = frames[point["case"]]
        depth, width = frame.image.shape
        place = position if np.isnan(point["column"]) else (point["column"] - frame.left) / width
        row = point["row"] - frame.top
        values = line_properties(frame.image, frame.confidence, row, columns_at(width, place))
        values |= {f"other_{number}": np.nan for number in range(OTHERS)}
        for number, donor in enumerate(donors[point["case"]]):
            other = frames[donor].confidence
            donor_row = int(np.clip(row / depth * len(other), 0, len(other) - 1))
            values[f"other_{number}"] = float(other[donor_row, columns_at(other.shape[1], place)].mean())
        lines.append(values)
    return pd.concat([spread.reset_index(drop=True), pd.DataFrame(lines)], axis=1)


def partial_rank(first: Array, second: Array, given: Sequence[Array]) -> float:
    """Compute Spearman's correlation of two quantities, adjusted for others.

    Args:
        first: Values, ``(n,)``.
        second: Values, ``(n,)``.
        given: Quantities whose ranks, and squares of ranks if there are at least 30 points, are removed from the ranks
            of both by regression, ``(n,)`` each.

    Returns:
        The correlation; NaN if one quantity is constant or explained by the others.
    """
    ranks = np.stack([mid_ranks(first), mid_ranks(second)], axis=1)
    if given:
        scaled = [mid_ranks(values) / len(first) - 0.5 for values in given]
        squares = [values**2 for values in scaled] if len(first) >= 30 else []
        basis = np.stack([np.ones(len(first)), *scaled, *squares], axis=1)
        residuals = ranks - basis @ np.linalg.lstsq(basis, ranks, rcond=1e-10)[0]
        if np.ptp(residuals, axis=0).min() < 1e-6 * len(first):
            return float("nan")
        ranks = residuals
    return correlation(ranks[:, 0], ranks[:, 1])


def sequence_correlations(
    points: pd.DataFrame, predictor: str, spread: str = "sd", given: Sequence[str] = ()
) -> pd.DataFrame:
    """Correlate a predictor with the variability of the raters in every sequence.

    Args:
        points: Table by :func:`measure_points`.
        predictor: Column of the predictor; ``other`` for the mean of the correlations with maps of other subjects.
        spread: Column of the variability.
        given: Columns for which the correlation is adjusted.

    Returns:
        Table with the columns ``subject``, ``sequence`` and ``rho``, without sequences in which it is not defined.
    """
    names = [f"other_{number}" for number in range(OTHERS)] if predictor == "other" else [predictor]
    lines = []
    for (subject, sequence), part in points.groupby(["subject", "sequence"], sort=False):
        covariates = [part[name].to_numpy(float) for name in given]
        if len(part) < max(POINTS, 4 * (1 + len(given))):
            continue
        values = [partial_rank(part[name].to_numpy(float), part[spread].to_numpy(float), covariates) for name in names]
        rho = float(np.mean(values))
        if np.isfinite(rho):
            lines.append((subject, sequence, rho))
    return pd.DataFrame(lines, columns=["subject", "sequence", "rho"])


class Summary(NamedTuple):
    """Mean correlation over subjects.

    Attributes:
        mean: Mean over subjects of the means over their sequences.
        low: Lower limit of the 95 % interval, by bootstrap over subjects.
        high: Upper limit.
        p: Exact signed-rank p over subjects.
        subjects: Number of subjects.
        sequences: Number of sequences.
    """

    mean: float
    low: float
    high: float
    p: float
    subjects: int
    sequences: int


def summarise(correlations: pd.DataFrame) -> Summary:
    """Average the correlations of the sequences of each subject, and test them over subjects.

    Args:
        correlations: Table by :func:`sequence_correlations`.

    Returns:
        Mean with interval; NaN without any, and without an interval for a single subject.
    """
    means = correlations.groupby("subject")["rho"].mean().to_numpy()
    if not len(means):
        return Summary(np.nan, np.nan, np.nan, np.nan, 0, 0)
    low, high = mean_interval(means) if len(means) > 1 else (np.nan, np.nan)
    return Summary(float(means.mean()), low, high, signed_rank_p(means), len(means), len(correlations))


def correlation_line(title: str, condition: str, summary: Summary) -> list[Cell]:
    """Return the cells of a line of the table of correlations."""
    interval = f"{summary.low:+.2f} to {summary.high:+.2f}" if np.isfinite(summary.low) else "-"
    counts = f"{summary.subjects} / {summary.sequences}"
    numbers = (f"{summary.mean:+.2f}", interval, f"{summary.p:.2g}") if summary.subjects else ("-", "-", "-")
    return [Cell(text) for text in (title, condition, *numbers, counts)]


COLUMNS = ["SD of the raters with", "condition", "rho", "95 % CI", "p", "subjects / sequences"]
NOTE = (
    "Spearman correlation with the SD of the raters' rows in every sequence, averaged over the sequences of a subject "
    "and then over subjects; 95 % interval by bootstrap over subjects (BCa), and p of the exact signed-rank test over "
    "subjects. Negative if raters differ more where the quantity is low. Confidence falls with depth by construction, "
    "so that only the correlation adjusted for depth, or within a boundary, is evidence for more than depth; maps of "
    "other subjects (mean of ten) have the same dependence on depth and no information about the image."
)


def row_variability_page(points: pd.DataFrame, left_out: int, raters: int) -> Page:
    """Create the page on raters who marked rows.

    Args:
        points: Table by :func:`measure_points`.
        left_out: Number of images that were left out as slips.
        raters: Number of raters.

    Returns:
        The page.
    """
    boundaries = list(dict.fromkeys(points["boundary"]))
    sd_lines = []
    for boundary in boundaries:
        part = points[points["boundary"] == boundary]
        mean_squares = part.groupby("subject")[["sd", "sd_unbiased"]].agg(lambda sds: np.sqrt((sds**2).mean()))
        cells = [f"{mean_squares[name].mean():.2f}" for name in mean_squares]
        sd_lines.append([Cell(text) for text in (boundary, *cells, f"{part['depth'].mean():.2f}", str(len(part)))])
    lines = []
    for predictor, title in (("confidence", "confidence"), ("other", "map of another subject")):
        conditions: list[tuple[str, pd.DataFrame, list[str]]] = [("not adjusted", points, [])]
        conditions.append(("given depth", points, ["depth"]))
        conditions += [(f"{name} boundary", points[points["boundary"] == name], []) for name in boundaries]
        for condition, part, given in conditions:
            summary = summarise(sequence_correlations(part, predictor, given=given))
            lines.append(correlation_line(title, condition, summary))
    for predictor in ("depth", "contrast", "speckle_snr", "confidence_drop", "energy_below"):
        summary = summarise(sequence_correlations(points, predictor))
        lines.append(correlation_line(predictor.replace("_", " "), "not adjusted", summary))
    return Page(
        title="Confidence and the variability of raters",
        summary=f"{points['case'].nunique()} images of {points['subject'].nunique()} subjects in "
        f"{points['sequence'].nunique()} sequences, {raters} raters; {left_out} images were left out as slips.",
        tables=[
            ReportTable(
                "rater_sd",
                "Variability of the raters",
                "Root mean square over the images of a subject, mean over subjects, in pixels: SD of the raters' rows, "
                "and after removing each rater's mean deviation. Depth is a fraction of the insonified region.",
                ["boundary", "SD", "SD without bias", "depth", "points"],
                sd_lines,
            ),
            ReportTable("question", "Confidence and rater variability", NOTE, COLUMNS, lines),
        ],
        figures=(),
        provenance=f"Created with {', '.join(f'{name} {number}' for name, number in versions().items())}.",
    )


def compare_rows(
    folders: Sequence[Path],
    output: Path,
    raters: Path,
    position: float | None = None,
    slip: float | None = None,
    solver: ConfidenceMapSolver = ConfidenceMapSolver(),  # noqa: B008 (frozen)
) -> Path:
    """Relate the variability of raters who marked rows to confidence, and write the page.

    Args:
        folders: Folders of the images.
        output: Folder of the page and of ``points.csv``, the measurements at every boundary.
        raters: CSV file; see :mod:`cm_lightning.data.rater_rows`.
        position: Position from 0 to 1 along the boundary at which raters marked it; see :func:`measure_points`.
        slip: Images with a rater at this distance in pixels, or more, from the mean of the others are left out.
        solver: Solver of the maps.

    Returns:
        Path of the page.

    Raises:
        InputError: The rows or images cannot be read, or all images are left out.
    """
    rows = read_rater_rows(raters)
    spread = rater_spread(rows)
    slips = set() if slip is None else set(spread.loc[spread["farthest"] >= slip, "case"])
    spread = rater_spread(rows[~rows["case"].isin(slips)])
    if not len(spread):
        raise InputError(f"All images of {raters} have a rater {slip} pixels or more from the others; none is left.")
    frames = read_frames(folders, cases_by_sequence(spread), solver)
    points = measure_points(spread, frames, position)
    write_table(output / "points.csv", points)
    return row_variability_page(points, len(slips), rows["rater"].nunique()).write(output)
