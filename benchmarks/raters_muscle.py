"""Can confidence maps predict the variability of three raters on real muscles?

    python benchmarks/raters_muscle.py TIMTRACK benchmarks/results/raters_muscle

TIMTRACK contains ``frames`` and ``raters.csv``: frames of the thigh and the calf, in which three raters marked the row
of the superficial and of the deep aponeurosis. The SD of the raters is related to confidence, and to what else may
explain it. ``benchmarks/raters_muscle_spread.py`` relates it to the spread of networks.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data.rater_rows import read_rater_rows
from cm_lightning.evaluation.page import Drawing, Page
from cm_lightning.evaluation.report_table import Cell, ReportTable
from cm_lightning.runs.versions import versions
from cm_lightning.statistics.means import mean_interval
from cm_lightning.variability.row_raters import (
    COLUMNS,
    NOTE,
    OTHERS,
    MarkedFrame,
    cases_by_sequence,
    correlation_line,
    measure_points,
    partial_rank,
    rater_spread,
    read_frames,
    row_variability_page,
    sequence_correlations,
    summarise,
)
from cm_lightning.writing import write_table

# Frames with a rater this many pixels or more from the mean of the others are slips.
SLIP = 25.0
RESAMPLES = 1000
POSITIONS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
SOLVERS = {
    "alpha 2, beta 90": ConfidenceMapSolver(alpha=2.0, beta=90.0),
    "alpha 0.5, beta 400": ConfidenceMapSolver(alpha=0.5, beta=400.0),
    "formulation paper": ConfidenceMapSolver(formulation="paper"),
    "formulation realtime": ConfidenceMapSolver(formulation="realtime", normalise="fixed"),
}
PREDICTORS = {
    "confidence": "confidence",
    "other": "map of another subject",
    "row_mean": "mean of the map in the row",
    "residual": "confidence minus mean of the row",
    "depth": "depth",
    "contrast": "contrast across the line",
    "speckle_snr": "speckle SNR around the line",
    "confidence_drop": "drop of confidence across the line",
    "energy_below": "share of the energy below (shadow)",
}


def pooled(
    points: pd.DataFrame, predictor: str, given: Sequence[str] = (), index: NDArray[np.int64] | None = None
) -> float:
    """Correlate a predictor with the SD of the raters over all points of a table, or those of some of its rows."""
    names = [f"other_{number}" for number in range(OTHERS)] if predictor == "other" else [predictor]
    chosen = slice(None) if index is None else index

    def column(name: str) -> NDArray[np.float64]:
        return points[name].to_numpy(float)[chosen]

    return float(
        np.mean([partial_rank(column(name), column("sd"), [column(other) for other in given]) for name in names])
    )


def over_subjects(points: pd.DataFrame, predictor: str, given: Sequence[str] = ()) -> Cell:
    """Return the correlation over all points with its 95 % percentile interval, by bootstrap over subjects."""
    parts = list(points.reset_index(drop=True).groupby("subject", sort=False).indices.values())
    generator = np.random.default_rng(0)
    draws = generator.integers(0, len(parts), (RESAMPLES, len(parts)))
    values = [pooled(points, predictor, given, np.concatenate([parts[number] for number in draw])) for draw in draws]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Cell(f"{pooled(points, predictor, given):+.2f} ({low:+.2f} to {high:+.2f})")


def of_boundary(points: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the points of one boundary."""
    return points[points["boundary"] == name]


def question_table(points: pd.DataFrame) -> ReportTable:
    """Create the table that answers the question, with all conditions, one correlation per sequence."""
    superficial, deep = of_boundary(points, "superficial"), of_boundary(points, "deep")
    lines = []
    conditions: list[tuple[str, str, pd.DataFrame, Sequence[str], str]] = [
        ("confidence", "not adjusted", points, (), "sd"),
        ("confidence", "superficial boundary", superficial, (), "sd"),
        ("confidence", "deep boundary", deep, (), "sd"),
        ("confidence", "given depth", points, ("depth",), "sd"),
        ("confidence", "deep boundary, given contrast", deep, ("contrast",), "sd"),
        ("confidence", "biases of raters removed", points, (), "sd_unbiased"),
        ("confidence", "biases removed, deep boundary", deep, (), "sd_unbiased"),
        ("confidence", "biases removed, given depth", points, ("depth",), "sd_unbiased"),
        ("other", "not adjusted", points, (), "sd"),
        ("other", "superficial boundary", superficial, (), "sd"),
        ("other", "deep boundary", deep, (), "sd"),
        ("other", "given depth", points, ("depth",), "sd"),
        ("residual", "not adjusted", points, (), "sd"),
        ("residual", "deep boundary", deep, (), "sd"),
    ]
    for predictor, condition, part, given, spread in conditions:
        summary = summarise(sequence_correlations(part, predictor, spread, given))
        lines.append(correlation_line(PREDICTORS[predictor], condition, summary))
    own = sequence_correlations(points, "confidence").set_index(["subject", "sequence"])["rho"]
    other = sequence_correlations(points, "other").set_index(["subject", "sequence"])["rho"]
    difference = summarise((own - other).dropna().reset_index())
    lines.append(correlation_line("confidence minus map of another subject", "difference of rho", difference))
    return ReportTable("question", "Confidence and the SD of the raters, within sequences", NOTE, COLUMNS, lines)


def pooled_table(points: pd.DataFrame) -> ReportTable:
    """Create the table of all predictors over all points, which also contains differences between subjects."""
    parts = (points, of_boundary(points, "superficial"), of_boundary(points, "deep"))
    lines = []
    for predictor, title in PREDICTORS.items():
        cells = [over_subjects(part, predictor) for part in parts]
        given = Cell("-") if predictor == "depth" else over_subjects(points, predictor, ("depth",))
        beyond = ("depth", "contrast")
        both = Cell("-") if predictor in beyond else over_subjects(points, predictor, beyond)
        lines.append([Cell(title), *cells, given, both])
    return ReportTable(
        "pooled",
        "All predictors, over all points",
        "Spearman correlation with the SD of the raters over all points together, which also contains differences "
        f"between subjects; 95 % percentile interval by bootstrap over subjects ({RESAMPLES} resamples). Adjusted "
        "values are partial rank correlations (ranks and their squares are removed).",
        ["", "all", "superficial", "deep", "given depth", "given depth and contrast"],
        lines,
    )


def sequence_table(points: pd.DataFrame) -> ReportTable:
    """Create the table of predictors within sequences and within boundaries."""
    lines = []
    for predictor, title in PREDICTORS.items():
        for name in ("superficial", "deep"):
            summary = summarise(sequence_correlations(of_boundary(points, name), predictor))
            lines.append(correlation_line(title, f"{name} boundary", summary))
    return ReportTable("within", "All predictors, within sequences and boundaries", NOTE, COLUMNS, lines)


def position_table(tables: dict[float | None, pd.DataFrame], best: dict[str, NDArray[np.floating[Any]]]) -> ReportTable:
    """Create the table of the answer for every place at which raters may have measured."""
    lines = []
    for position, points in tables.items():
        deep = of_boundary(points, "deep")
        name = "mean over all columns" if position is None else f"{position:.3g}"
        share = (
            "-"
            if position is None
            else " / ".join(f"{np.mean(best[part] == position):.2f}" for part in ("superficial", "deep"))
        )
        cells = [
            over_subjects(points, "confidence"),
            over_subjects(deep, "confidence"),
            over_subjects(points, "confidence", ("depth",)),
            over_subjects(points, "other"),
        ]
        contrasts = [
            "{:.3f} ({:.3f} to {:.3f})".format(*_with_interval(of_boundary(points, part)))
            for part in ("superficial", "deep")
        ]
        lines.append([Cell(name), *map(Cell, contrasts), Cell(share), *cells])
    return ReportTable(
        "position",
        "Where the raters measured, and whether the answer depends on it",
        "Position along the boundary, from 0 (left edge of the insonified region) to 1. The line is bright, so that "
        "the contrast at the raters' rows is highest where they measured: mean over subjects with bootstrap interval "
        "(intensities from 0 to 1), and fraction of the bootstrap resamples over subjects in which it is highest at "
        "this position (superficial / deep). The correlations over all points are those that would be found if the "
        "raters had measured there.",
        ["position", "contrast, superficial", "contrast, deep", "highest", "rho", "rho, deep", "rho given depth",
         "rho, map of another subject"],
        lines,
    )  # fmt: skip


def _with_interval(points: pd.DataFrame) -> tuple[float, float, float]:
    means = points.groupby("subject")["contrast"].mean().to_numpy()
    return float(means.mean()), *mean_interval(means)


def brightest_positions(tables: dict[float | None, pd.DataFrame]) -> dict[str, NDArray[np.floating[Any]]]:
    """Return the position with the highest mean contrast in every resample of the subjects, by boundary."""
    positions = np.array([position for position in tables if position is not None])
    generator, best = np.random.default_rng(0), {}
    for name in ("superficial", "deep"):
        contrasts = np.stack(
            [of_boundary(tables[position], name).groupby("subject")["contrast"].mean() for position in positions]
        )
        draws = generator.integers(0, contrasts.shape[1], (RESAMPLES, contrasts.shape[1]))
        best[name] = positions[contrasts[:, draws].mean(axis=2).argmax(axis=0)]
    return best


def worse_table(points: pd.DataFrame) -> ReportTable:
    """Create the table that counts where raters differ more at the deep boundary."""
    lines = []
    for level, title in (("sequence", "sequences"), ("subject", "subjects")):
        means = points.groupby([level, "boundary"])["sd"].mean().unstack()
        ratio = (means["deep"] / means["superficial"]).median()
        worse = int((means["deep"] > means["superficial"]).sum())
        lines.append([Cell(title), Cell(f"{worse} of {len(means)}"), Cell(f"{ratio:.2f}")])
    return ReportTable(
        "boundaries",
        "Superficial and deep boundary",
        "Number of sequences and subjects in which the mean SD of the raters is larger at the deep boundary, and "
        "median of the ratio of the mean SDs.",
        ["", "deep is larger", "deep / superficial"],
        lines,
    )


def solver_table(spread: pd.DataFrame, folder: Path) -> ReportTable:
    """Create the table of maps with other parameters and formulations, at the left edge."""
    lines = []
    for title, solver in SOLVERS.items():
        points = measure_points(spread, read_frames([folder], cases_by_sequence(spread), solver), 0.0)
        for predictor in ("confidence", "other"):
            for condition, part, given in (
                ("not adjusted", points, ()),
                ("given depth", points, ("depth",)),
                ("deep boundary", of_boundary(points, "deep"), ()),
            ):
                summary = summarise(sequence_correlations(part, predictor, given=given))
                lines.append(correlation_line(f"{title}: {PREDICTORS[predictor]}", condition, summary))
    return ReportTable("solvers", "Maps with other parameters and formulations", NOTE, COLUMNS, lines)


def figures(tables: dict[float | None, pd.DataFrame]) -> Iterator[Drawing]:
    """Draw the SD of the raters against confidence, and contrast and correlation by position."""
    points = tables[0.0]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    scatter, forest = figure.subplots(1, 2, width_ratios=(1, 1.25))
    for name, colour in (("superficial", "tab:blue"), ("deep", "tab:orange")):
        part = of_boundary(points, name)
        scatter.plot(part["confidence"], part["sd"], ".", color=colour, alpha=0.35, markersize=5)
        means = part.groupby("sequence")[["confidence", "sd"]].mean()
        scatter.plot(means["confidence"], means["sd"], "o", color=colour, markeredgecolor="black", label=name)
    scatter.set_yscale("symlog", linthresh=1)
    scatter.set_ylim(0, None)
    scatter.set_xlabel("confidence at the boundary")
    scatter.set_ylabel("SD of three raters [pixels]")
    scatter.legend(title="boundary (large: means of sequences)", frameon=False, fontsize=8, title_fontsize=8)
    scatter.grid(alpha=0.3)
    lines = [
        (f"{PREDICTORS[predictor]}: {condition}", summarise(sequence_correlations(part, predictor, given=given)))
        for condition, part, given in (
            ("both boundaries", points, ()),
            ("given depth", points, ("depth",)),
            ("superficial", of_boundary(points, "superficial"), ()),
            ("deep", of_boundary(points, "deep"), ()),
        )
        for predictor in ("confidence", "other")
    ]
    lines += [
        (f"{PREDICTORS[predictor]}: both boundaries", summarise(sequence_correlations(points, predictor)))
        for predictor in ("depth", "contrast", "energy_below")
    ]
    for place, (_, summary) in enumerate(reversed(lines)):
        forest.plot([summary.low, summary.high], [place, place], color="tab:gray")
        forest.plot(summary.mean, place, "o", color="black", markersize=4)
    forest.axvline(0, color="gray", linewidth=1)
    forest.set_yticks(range(len(lines)), [title for title, _ in reversed(lines)], fontsize=8)
    forest.set_xlabel("Spearman correlation with the SD of the raters,\nmean over subjects with 95 % interval")
    forest.grid(alpha=0.3, axis="x")
    yield "question", "Confidence and the SD of three raters", figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    positions = [position for position in tables if position is not None]
    for name, colour in (("superficial", "tab:blue"), ("deep", "tab:orange")):
        values = np.array([_with_interval(of_boundary(tables[position], name)) for position in positions])
        left.plot(positions, values[:, 0], "o-", color=colour, label=name, markersize=4)
        left.fill_between(positions, values[:, 1], values[:, 2], color=colour, alpha=0.2, linewidth=0)
        rho = [pooled(of_boundary(tables[position], name), "confidence") for position in positions]
        right.plot(positions, rho, "o-", color=colour, label=f"within the {name} boundary", markersize=4)
    for predictor, colour in (("confidence", "black"), ("other", "tab:gray")):
        rho = [pooled(tables[position], predictor) for position in positions]
        right.plot(positions, rho, "o-", color=colour, label=f"{PREDICTORS[predictor]}, both", markersize=4)
    left.set_ylabel("contrast at the row of the raters")
    right.set_ylabel("Spearman correlation, all points")
    right.axhline(0, color="gray", linewidth=1)
    for axes in (left, right):
        axes.set_xlabel("position along the boundary (0: left edge)")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    yield "position", "Where the raters measured", figure


def measure_all(spread: pd.DataFrame, frames: dict[str, MarkedFrame]) -> dict[float | None, pd.DataFrame]:
    """Measure the points at every position, with intensities from 0 to 1."""
    scaled = {case: frame._replace(image=frame.image / 255) for case, frame in frames.items()}
    return {position: measure_points(spread, scaled, position) for position in (*POSITIONS, None)}


def main() -> None:
    """Write the page, its tables and figures, and the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("timtrack", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    rows = read_rater_rows(arguments.timtrack / "raters.csv")
    first = rater_spread(rows)
    slips = first.loc[first["farthest"] >= SLIP, "case"].unique()
    kept = rows[~rows["case"].isin(slips)]
    spread = rater_spread(kept)
    frames = read_frames([arguments.timtrack / "frames"], cases_by_sequence(spread), ConfidenceMapSolver())
    tables = measure_all(spread, frames)
    points = tables[0.0]
    write_table(arguments.output / "points.csv", points.round(4))
    base = row_variability_page(points, len(slips), kept["rater"].nunique())
    report = [
        base.tables[0],
        worse_table(points),
        question_table(points),
        pooled_table(points),
        sequence_table(points),
        position_table(tables, brightest_positions(tables)),
        solver_table(spread, arguments.timtrack / "frames"),
    ]
    Page(
        title="Confidence maps and three raters on real muscles",
        summary=f"{base.summary} Confidence and all other properties are those at the left edge of the insonified "
        "region (5 % of its width) unless stated otherwise.",
        tables=report,
        figures=figures(tables),
        provenance=f"Created with {', '.join(f'{name} {number}' for name, number in versions().items())}.",
    ).write(arguments.output)
    (arguments.output / "report.html").unlink()


if __name__ == "__main__":
    main()
