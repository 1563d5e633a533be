"""Does the spread of networks follow the SD of three raters on real muscles, beyond depth and contrast?

    python benchmarks/raters_muscle_spread.py TIMTRACK NETWORKS benchmarks/results/raters_muscle/points.csv RESULTS

NETWORKS is the folder of ``benchmarks/raters_muscle_networks.py``, and points.csv was written by
``benchmarks/raters_muscle.py``. RESULTS is ``benchmarks/results/raters_muscle_networks``. Only seeds of which all four
inputs were trained are used.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from muscle_frames import BOUNDARIES, depth_extents
from numpy.typing import NDArray
from raters_muscle_networks import SIZE

from cm_lightning.data.rater_rows import read_rater_rows
from cm_lightning.errors import MissingInputError
from cm_lightning.evaluation.page import Drawing, Page
from cm_lightning.evaluation.report_table import Cell, ReportTable
from cm_lightning.runs.versions import versions
from cm_lightning.statistics.means import mean_interval
from cm_lightning.statistics.training_runs import run_level_mean
from cm_lightning.variability.row_raters import columns_at, sequence_correlations, summarise

Array = NDArray[np.floating[Any]]

SETTINGS = {
    "1ch": "image",
    "2ch": "image and map",
    "ramp": "image and depth ramp",
    "other": "image and map of another image",
}
SPREADS = {
    "told_dropout": "MC dropout, told the line",
    "told_augmented": "test-time augmentation, told the line",
    "told_ensemble": "deep ensemble, told the line",
    "dropout": "MC dropout",
    "augmented": "test-time augmentation",
    "ensemble": "deep ensemble",
}
# Conditions of the correlation: title, boundary, and quantities for which it is adjusted.
CONDITIONS: dict[str, tuple[str | None, Sequence[str]]] = {
    "not adjusted": (None, ()),
    "given depth and contrast": (None, ("depth", "contrast")),
    "deep boundary": ("deep", ()),
}
# Errors of this many pixels or more mean that another line was found.
GROSS = 25.0
RESAMPLES = 2000


@dataclass(frozen=True)
class Networks:
    """Predictions of all networks beside the raters.

    Attributes:
        points: Long table with a line per setting, seed, case and boundary: the columns of the measured points,
            ``predicted`` (row at the left edge) and the spreads of the networks in pixels; that of the ensemble is the
            same for all seeds.
        curves: Table with a line per setting and seed: loss and errors on the validation frames.
        by_column: Mean distance of the predicted row from the raters' row by subject and column, ``(subjects,
            columns)``, by boundary, after the median offset was removed.
        rater_distance: Median distance of a rater from the mean of the two others in pixels, by subject and boundary.
        seeds: Seeds of which all settings were trained.
    """

    points: pd.DataFrame
    curves: pd.DataFrame
    by_column: dict[str, Array]
    rater_distance: pd.DataFrame
    seeds: list[int]


def read_networks(
    folder: Path, points: pd.DataFrame, rows: pd.DataFrame, extents: dict[str, tuple[int, int]]
) -> Networks:
    """Read the predictions of all seeds of which every setting was trained.

    Args:
        folder: Folder with a file per setting and seed.
        points: Measured points at the left edge.
        rows: Rows of the raters.
        extents: First row and number of rows of the insonified region of every case.

    Returns:
        Predictions beside the raters.

    Raises:
        MissingInputError: No seed is complete.
    """
    numbers = sorted({int(path.stem.rpartition("seed")[2]) for path in folder.glob("*_seed*.npz")})
    seeds = [seed for seed in numbers if all((folder / f"{name}_seed{seed}.npz").is_file() for name in SETTINGS)]
    if len(seeds) < 2:
        raise MissingInputError(
            f"{folder} contains {len(seeds)} seeds with all of {', '.join(SETTINGS)}; expected two."
        )
    lines, curves, distances = [], [], []
    for setting in SETTINGS:
        files = [dict(np.load(folder / f"{setting}_seed{seed}.npz")) for seed in seeds]
        names = {str(name): index for index, name in enumerate(files[0]["names"])}
        size = files[0]["rows"].shape[-1]
        edge = columns_at(size, 0.0)
        ensembles = {
            f"{prefix}ensemble": np.stack([file[f"{prefix}rows"][..., edge].mean(axis=-1) for file in files]).std(
                0, ddof=1
            )
            for prefix in ("", "told_")
        }
        for seed, file in zip(seeds, files, strict=True):
            spreads = ensembles | {
                name: file[name][..., edge].mean(axis=-1).std(axis=0, ddof=1)
                for name in ("dropout", "augmented", "told_dropout", "told_augmented")
            }
            curve = file["curve"]
            curves.append((setting, seed, len(curve), curve[len(curve) * 4 // 5 - 1, 1], *curve[-1, 1:]))
            for point in points.to_dict("records"):
                (top, depth), index = extents[point["case"]], names[point["case"]]
                boundary = BOUNDARIES.index(point["boundary"])
                scale = depth / SIZE[0]
                by_column = (file["rows"][index, boundary] + 0.5) * scale - 0.5 + top
                told = (file["told_rows"][index, boundary].mean() + 0.5) * scale - 0.5 + top
                distances.append((setting, seed, point["subject"], point["boundary"], *(by_column - point["row"])))
                values = {name: float(spread[index, boundary]) * scale for name, spread in spreads.items()}
                places = {"predicted": by_column[edge].mean(), "told_predicted": told}
                lines.append({"setting": setting, "seed": seed, **places, **values})
    table = pd.concat(
        [pd.DataFrame(lines), pd.concat([points] * (len(lines) // len(points)), ignore_index=True)], axis=1
    )
    columns = pd.DataFrame(distances, columns=["setting", "seed", "subject", "boundary", *range(size)])
    by_column = {}
    for boundary, part in columns.groupby("boundary"):
        values = part[list(range(size))]
        offset = values.groupby(part["subject"]).median().median()
        by_column[str(boundary)] = (values - offset).abs().clip(upper=GROSS).groupby(part["subject"]).mean().to_numpy()
    place = rows.groupby(["case", "boundary"])["row"]
    others = (place.transform("sum") - rows["row"]) / (place.transform("size") - 1)
    rater_distance = (rows["row"] - others).abs().groupby([rows["subject"], rows["boundary"]]).median().unstack()
    titles = ["setting", "seed", "epochs", "loss_at_80", "loss", "superficial", "deep"]
    return Networks(table, pd.DataFrame(curves, columns=titles), by_column, rater_distance, seeds)


def network_tables(networks: Networks) -> list[ReportTable]:
    """Create the tables of accuracy, spread, effect of the second channel, place of the raters, and training."""
    return [
        accuracy_table(networks),
        spread_table(networks),
        channel_table(networks),
        column_table(networks),
        training_table(networks),
    ]


def accuracy_table(networks: Networks) -> ReportTable:
    """Create the table of distances from the raters' mean beside the raters' distance from each other."""
    lines = []
    for name, told in (("predicted", ""), ("told_predicted", ", told the line")):
        table = networks.points.assign(error=networks.points[name] - networks.points["row"])
        for setting, title in SETTINGS.items():
            part = table[table["setting"] == setting]
            cells = []
            for boundary in BOUNDARIES:
                errors = part[part["boundary"] == boundary]
                offset = errors.groupby("subject")["error"].median().median()
                distance = (errors["error"] - offset).abs()
                medians = distance.groupby(errors["subject"]).median().to_numpy()
                gross = (distance >= GROSS).groupby(errors["subject"]).mean().mean()
                cells += [f"{offset:+.1f}", _interval(medians), f"{gross:.2f}"]
            lines.append([Cell(text) for text in (title + told, *cells)])
    raters = [_interval(networks.rater_distance[name].to_numpy()) for name in BOUNDARIES]
    lines.append([Cell(text) for text in ("raters", "-", raters[0], "-", "-", raters[1], "-")])
    return ReportTable(
        "accuracy",
        "Accuracy of the networks beside the raters",
        "Networks: distance of the predicted row at the left edge from the mean of the raters in pixels, after the "
        "offset (median over subjects) was removed, since training data and raters may mark different edges of a line: "
        f"median over the frames of a subject and {len(networks.seeds)} seeds, mean over subjects with bootstrap "
        f"interval, and the fraction of frames with {GROSS:g} pixels or more, in which another line was found. Told "
        "the line: only rows within 12 of 192 rows of the median of the raters count. Raters: median distance of a "
        "rater from the mean of the two others.",
        ["", "offset, superficial", "distance", "gross", "offset, deep", "distance", "gross"],
        lines,
    )


def correlations(networks: Networks, setting: str, spread: str, condition: str) -> pd.DataFrame:
    """Return the correlation of a spread with the SD of the raters by subject and seed (one column per seed)."""
    boundary, given = CONDITIONS[condition]
    by_seed = {}
    for seed in networks.seeds:
        part = networks.points[(networks.points["setting"] == setting) & (networks.points["seed"] == seed)]
        part = part if boundary is None else part[part["boundary"] == boundary]
        by_seed[seed] = sequence_correlations(part, spread, given=given).groupby("subject")["rho"].mean()
    return pd.DataFrame(by_seed)


def spread_table(networks: Networks) -> ReportTable:
    """Create the table of correlations of spreads with the SD of the raters."""
    lines = []
    for spread, spread_title in SPREADS.items():
        for setting, title in SETTINGS.items():
            part = networks.points[networks.points["setting"] == setting]
            cells = []
            for boundary in BOUNDARIES:
                sds = part[part["boundary"] == boundary].groupby("subject")[spread].mean()
                cells.append(f"{sds.mean():.2f}")
            for condition in CONDITIONS:
                values = correlations(networks, setting, spread, condition).mean(axis=1).dropna()
                summary = summarise(
                    values.rename("rho").rename_axis("subject").reset_index().assign(sequence=values.index)
                )
                cells.append(f"{summary.mean:+.2f} ({summary.low:+.2f} to {summary.high:+.2f})")
            lines.append([Cell(text) for text in (spread_title, title, *cells)])
    first = networks.points[networks.points["setting"] == "1ch"]
    sds = first[first["seed"] == networks.seeds[0]].groupby(["subject", "boundary"])["sd"].mean().unstack().mean()
    numbers = [f"{sds[name]:.2f}" for name in ("superficial", "deep")]
    lines.append([Cell(text) for text in ("raters", "-", *numbers, *["-"] * len(CONDITIONS))])
    return ReportTable(
        "spread",
        "Spread of the networks and SD of the raters",
        "Mean SD at the left edge in pixels (mean over subjects), and Spearman correlation with the SD of the raters "
        "frame by frame: in every sequence, averaged over sequences, seeds and subjects, with bootstrap interval over "
        f"subjects. {len(networks.seeds)} seeds, of which the ensemble consists. Told the line: only rows near the "
        "median of the raters count, since the spread would otherwise measure which of several lines is found.",
        ["spread", "input", "superficial", "deep", *CONDITIONS],
        lines,
    )


def channel_table(networks: Networks) -> ReportTable:
    """Create the table of differences between the map as second channel and the other inputs."""
    lines = []
    for spread in ("told_dropout", "told_augmented", "dropout", "augmented"):
        for condition in CONDITIONS:
            own = correlations(networks, "2ch", spread, condition)
            for setting in ("1ch", "ramp", "other"):
                difference = (own - correlations(networks, setting, spread, condition)).dropna()
                estimate = run_level_mean(difference, np.zeros(len(difference)))
                low, high = estimate.interval()
                cells = [f"{estimate.mean:+.3f}", f"{low:+.3f} to {high:+.3f}", f"{estimate.p:.2g}"]
                lines.append([Cell(text) for text in (SPREADS[spread], condition, SETTINGS[setting], *cells)])
    return ReportTable(
        "channel",
        "Does the map as second channel bring the spread closer to the raters?",
        "Difference of the correlation with the SD of the raters between networks for image and map and other "
        "networks; positive if the map brings the spread closer. The interval and p cover subjects and training runs "
        "(crossed random effects); they are not corrected for the number of comparisons.",
        ["spread", "condition", "compared with", "difference of rho", "95 % CI", "p"],
        lines,
    )


def column_table(networks: Networks) -> ReportTable:
    """Create the table of the column at which the predicted line is nearest to the raters' rows."""
    generator = np.random.default_rng(0)
    lines = []
    for boundary, values in networks.by_column.items():
        draws = generator.integers(0, len(values), (RESAMPLES, len(values)))
        nearest = (values[draws].mean(axis=1).argmin(axis=1) + 0.5) / values.shape[1]
        means = values.mean(axis=0)
        low, high = np.percentile(nearest, [2.5, 97.5])
        best = (means.argmin() + 0.5) / values.shape[1]
        cells = [f"{best:.2f}", f"{low:.2f} to {high:.2f}"]
        cells += [f"{means[round(place * (len(means) - 1))]:.1f}" for place in (0, 0.25, 0.5, 0.75, 1)]
        lines.append([Cell(text) for text in (boundary, *cells)])
    return ReportTable(
        "columns",
        "Where the raters measured, by networks that have not seen their rows",
        "Position at which the predicted line, shifted by its median offset, is nearest to the raters' rows, with the "
        "interval of a bootstrap over subjects, and the mean distance in pixels (at most 25 each) at five positions.",
        ["boundary", "nearest at", "95 % CI", *(f"at {place:g}" for place in (0, 0.25, 0.5, 0.75, 1))],
        lines,
    )


def training_table(networks: Networks) -> ReportTable:
    """Create the table of validation losses, which shows whether training had converged."""
    lines = []
    for setting, title in SETTINGS.items():
        part = networks.curves[networks.curves["setting"] == setting]
        change = part["loss"] - part["loss_at_80"]
        cells = [f"{part['epochs'].iloc[0]}", f"{part['loss_at_80'].mean():.3f}", f"{part['loss'].mean():.3f}"]
        cells += [f"{change.mean():+.3f}", f"{part['superficial'].mean():.2f}", f"{part['deep'].mean():.2f}"]
        lines.append([Cell(text) for text in (title, *cells)])
    return ReportTable(
        "training",
        "Training",
        f"Means over {len(networks.seeds)} seeds on the validation frames: cross-entropy at 80 % of the epochs and at "
        "the end, and median error of both boundaries in rows of the grid (192 rows).",
        ["input", "epochs", "loss at 80 %", "loss", "change", "error, superficial", "error, deep"],
        lines,
    )


def network_figures(networks: Networks) -> Iterator[Drawing]:
    """Draw the spread of the networks against the SD of the raters."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    for axes, (spread, title) in zip(figure.subplots(2, 3, sharey=True).flat, SPREADS.items(), strict=True):
        positions = np.arange(len(CONDITIONS))
        for offset, (setting, name) in zip(np.linspace(-0.25, 0.25, len(SETTINGS)), SETTINGS.items(), strict=True):
            summaries = []
            for condition in CONDITIONS:
                values = correlations(networks, setting, spread, condition).mean(axis=1).dropna().to_numpy()
                summaries.append((values.mean(), *mean_interval(values)))
            means, lows, highs = np.array(summaries).T
            axes.errorbar(
                positions + offset, means, yerr=[means - lows, highs - means], fmt="o", markersize=4, label=name
            )
        axes.axhline(0, color="gray", linewidth=1)
        axes.set_xticks(positions, [condition.replace("given ", "given\n") for condition in CONDITIONS], fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3, axis="y")
    figure.axes[0].set_ylabel("Spearman correlation of the spread\nwith the SD of the raters")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    yield "networks", "Spread of the networks and SD of the raters", figure


def _interval(values: Array) -> str:
    return "{:.1f} ({:.1f} to {:.1f})".format(values.mean(), *mean_interval(values))


def main() -> None:
    """Write the page, its tables and its figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("timtrack", "networks", "points", "output"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    points = pd.read_csv(arguments.points)
    rows = read_rater_rows(arguments.timtrack / "raters.csv")
    rows = rows[rows["case"].isin(points["case"])]
    networks = read_networks(arguments.networks, points, rows, depth_extents(arguments.timtrack, points))
    cases, subjects = points["case"].nunique(), points["subject"].nunique()
    Page(
        title="Networks and three raters on real muscles",
        summary=f"Networks for four inputs, {len(networks.seeds)} seeds each, trained on frames with masks of "
        f"aponeuroses and applied to {cases} frames of {subjects} subjects with three raters.",
        tables=network_tables(networks),
        figures=network_figures(networks),
        provenance=f"Created with {', '.join(f'{name} {number}' for name, number in versions().items())}.",
    ).write(arguments.output)
    (arguments.output / "report.html").unlink()


if __name__ == "__main__":
    main()
