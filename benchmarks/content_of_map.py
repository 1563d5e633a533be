"""What is in a confidence map: the share of its variance that the depth alone explains.

    python benchmarks/content_of_map.py DATA benchmarks/results/content_of_map

DATA contains the folders usgra_seg (nerves), timtrack, dltrack_apo (muscles) and confidence_reference (the two frames
of MONAI's tests). The muscle phantom is simulated. Two shares of the variance of every map within its insonified region
are computed: that explained by the mean of each row, and that explained by a straight line over depth.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from muscle_frames import read_picture
from numpy.typing import NDArray

from cm_lightning.confidence import ConfidenceMapSolver, find_geometry
from cm_lightning.data import Phantom
from cm_lightning.data.duplicates import insonified_part
from cm_lightning.data.resampling import resample
from cm_lightning.drawing import save_figure
from cm_lightning.writing import write_table, write_text

Picture = NDArray[np.generic]

FRAMES = 40
STUDY = ConfidenceMapSolver(alpha=0.5, beta=100.0)
# Title, solver, and the grid as a function of the shape of the file.
SETTINGS: list[tuple[str, ConfidenceMapSolver, Callable[[tuple[int, ...]], tuple[int, int]] | None]] = [
    ("alpha 0.5, beta 100 (study)", STUDY, None),
    ("alpha 0.2, beta 100", ConfidenceMapSolver(alpha=0.2, beta=100.0), None),
    ("alpha 0.5, beta 400", ConfidenceMapSolver(alpha=0.5, beta=400.0), None),
    ("alpha 0.2, beta 400", ConfidenceMapSolver(alpha=0.2, beta=400.0), None),
    ("alpha 2, beta 90", ConfidenceMapSolver(alpha=2.0, beta=90.0), None),
    ("alpha 0.5, beta 10", ConfidenceMapSolver(alpha=0.5, beta=10.0), None),
    ("alpha 0.5, beta 1000", ConfidenceMapSolver(alpha=0.5, beta=1000.0), None),
    ("half of the rows and columns", STUDY, lambda shape: (shape[0] // 2, shape[1] // 2)),
    ("grid of 128 x 128", STUDY, lambda _: (128, 128)),
    ("formulation paper", ConfidenceMapSolver(formulation="paper"), None),
    ("formulation realtime", ConfidenceMapSolver(formulation="realtime", normalise="fixed"), None),
]


def chosen(paths: list[Path]) -> list[Path]:
    """Return up to :data:`FRAMES` files at equal distances in the list."""
    return [paths[index] for index in np.unique(np.linspace(0, len(paths) - 1, FRAMES).round().astype(int))]


def read_sets(root: Path) -> dict[str, list[Picture]]:
    """Read the frames of all data sets, cropped to their insonified rectangles."""

    def cropped(path: Path) -> Picture:
        picture = read_picture(path)
        inside = np.asarray(find_geometry(picture, "auto").domain(picture))
        return insonified_part(picture, np.broadcast_to(inside, picture.shape))

    folders = {
        "nerves": root / "usgra_seg" / "images",
        "muscles, three raters": root / "timtrack" / "frames",
        "muscles, masks": root / "dltrack_apo" / "images",
    }
    sets = {name: [cropped(path) for path in chosen(sorted(folder.glob("*.png")))] for name, folder in folders.items()}
    references = sorted((root / "confidence_reference").glob("*_input.png"))
    sets["reference frames"] = [read_picture(path) for path in references]
    phantom = Phantom("muscle", patients=10, size=(256, 256, 4))
    volumes = [phantom.simulate(number).image for number in range(phantom.patients)]
    sets["muscle phantom"] = [volume[..., frame] for volume in volumes for frame in range(volume.shape[2])]
    return sets


def shares(confidence: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Return the shares of the variance of a map that row means and a straight line over depth explain."""
    total = float(((confidence - confidence.mean()) ** 2).mean())
    means = confidence.mean(axis=1)
    depth = np.arange(len(means))
    line = np.polyval(np.polyfit(depth, means, 1), depth)
    return float(means.var()) / total, 1 - float(((confidence - line[:, None]) ** 2).mean()) / total


def measure(sets: dict[str, list[Picture]]) -> pd.DataFrame:
    """Compute the shares of all frames with all settings."""
    lines = []
    for name, pictures in sets.items():
        for number, picture in enumerate(pictures):
            for title, solver, grid in SETTINGS:
                frame = picture
                if grid is not None:
                    values = resample(picture, grid(picture.shape), "linear")[0].numpy()
                    frame = np.clip(values.round(), 0, 255).astype(np.uint8)
                rows, line = shares(np.asarray(solver(frame)).astype(np.float64))
                lines.append((name, number, title, rows, line))
        print(f"{name}: {len(pictures)} frames", flush=True)
    return pd.DataFrame(lines, columns=["data", "frame", "setting", "row_mean", "line"])


def table(shares_of: pd.DataFrame, column: str) -> str:
    """Return a Markdown table with the mean and the 5th and 95th percentile over the frames of a data set."""
    names = list(dict.fromkeys(shares_of["data"]))
    lines = [["", *names], ["---"] * (1 + len(names))]
    for title, *_ in SETTINGS:
        part = shares_of[shares_of["setting"] == title].groupby("data")[column]
        cells = [
            f"{part.get_group(name).mean():.3f} ({part.get_group(name).quantile(0.05):.2f} to "
            f"{part.get_group(name).quantile(0.95):.2f})"
            for name in names
        ]
        lines.append([title, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(shares_of: pd.DataFrame) -> Figure:
    """Draw the mean shares of every data set and setting, with the range from the 5th to the 95th percentile."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    names = list(dict.fromkeys(shares_of["data"]))
    titles = [title for title, *_ in SETTINGS]
    for axes, column, heading in zip(
        panels, ("row_mean", "line"), ("mean of each row", "straight line over depth"), strict=True
    ):
        for offset, name in zip(np.linspace(0.3, -0.3, len(names)), names, strict=True):
            groups = shares_of[shares_of["data"] == name].groupby("setting")[column]
            means = groups.mean()[titles].to_numpy()
            ends = [np.abs(groups.quantile(level)[titles].to_numpy() - means) for level in (0.05, 0.95)]
            place = np.arange(len(titles))[::-1] + offset
            axes.errorbar(means, place, xerr=ends, fmt="o", markersize=4, linewidth=1, label=name)
        axes.set_yticks(np.arange(len(titles))[::-1], titles)
        axes.set_xlabel(f"share of variance explained by the {heading}", fontsize=9)
        axes.set_xlim(0, 1.02)
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names), frameon=False)
    return figure


def write_page(results: pd.DataFrame, output: Path) -> None:
    """Write the page and the figure."""
    save_figure(draw(results), output / "content.png", dpi=130)
    counts = results[results["setting"] == SETTINGS[0][0]].groupby("data", sort=False).size()
    listed = "; ".join(f"{name}: {number} frames" for name, number in counts.items())
    text = f"""# What is in a confidence map?

```bash
python benchmarks/content_of_map.py DATA benchmarks/results/content_of_map
```

The share of the variance of a map, within its insonified region, that depth alone explains. A map of which the rows
explain everything contains nothing about the image beyond a curve over depth. Mean over the frames of a data set, with
the 5th and the 95th percentile of the frames ({listed}). Maps were
computed on the grid of the files unless stated otherwise, with a gamma of 0.05. Every map is listed in `rows.csv`.

![Share of the variance of confidence maps explained by depth](content.png)

## Share explained by the mean of each row

{table(results, "row_mean")}

## Share explained by a straight line over depth

{table(results, "line")}
"""
    write_text(output / "content_of_map.md", text)


def main() -> None:
    """Compute all maps, and write the rows, the page and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    results = measure(read_sets(arguments.data))
    write_table(arguments.output / "rows.csv", results.round(5))
    write_page(results, arguments.output)


if __name__ == "__main__":
    main()
