"""``variability``: compare predictive uncertainty and rater variability, and relate both to confidence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cm_lightning.errors import UsageError
from cm_lightning.parsing import check_exclusive, run_function


def variability(
    runs: list[Path],
    raters: Path | None = None,
    rater_pattern: str | None = None,
    consensus: Literal["majority", "staple"] = "majority",
    output: Path = Path("variability"),
    sampled: Path | None = None,
    samples: int = 100,
    batch_size: int = 1,
    frames: int = 3,
    data_root: Path | None = None,
    accelerator: str = "auto",
    baseline: str | None = None,
    compare: list[str] | None = None,
    family: Literal["table", "page"] = "table",
    position: float | None = None,
    slip: float | None = None,
) -> None:
    """Compare MC-dropout samples of finished runs with repeated labels of the same images.

    The labels come from several raters, or from one rater who labelled every image several times. Without labels of
    raters, the uncertainty of a network is compared with its errors only. The command writes a page, its tables and
    figures as separate files, and all measurements as CSV files.

    Raters who marked the rows of boundaries instead of drawing masks are read from one CSV file. Their variability is
    then compared with the confidence maps of the images, without networks.

    Args:
        runs: Folders of experiments, or folders that contain folders of experiments; with a CSV file of raters, folders
            of images.
        raters: Folder that contains one folder of repeated labels per case, or a CSV file with the columns frame, rater
            and one column <boundary>_row per boundary.
        rater_pattern: Regular expression that must match the whole name of a label file without its suffix, with the
            group rater and, for repeated labels, the group repeat; <rater>_<repeat> by default.
        consensus: Method that combines the labels of an image.
        output: Folder of the page.
        sampled: Folder in which samples are kept for later calls; a folder inside the output by default.
        samples: Number of forward passes with dropout.
        batch_size: Number of samples per forward pass.
        frames: Number of frames per volume that are compared.
        data_root: Folder of the data set, if it differs from the one used in training.
        accelerator: Lightning's name of the device, such as cpu or gpu.
        baseline: Model with which all others are compared.
        compare: Planned comparisons, each MODEL=BASELINE, instead of a single baseline.
        family: Comparisons over which p values are corrected (Holm): those of each table, or those of all tables.
        position: Position along the boundary, from 0 (left) to 1, at which the raters of a CSV file marked it, if the
            file has no column named column; all columns by default.
        slip: Images with a rater of a CSV file this many pixels or more from the mean of the others are left out.
    """
    check_exclusive(baseline=baseline, compare=compare)
    if raters is not None and raters.suffix.lower() == ".csv":
        from cm_lightning.variability.row_raters import compare_rows

        print(f"Wrote {compare_rows(runs, output, raters, position, slip)}.")
        return
    if position is not None or slip is not None:
        raise UsageError("position and slip are options for raters in a CSV file; expected --raters FILE.csv.")

    from cm_lightning.data.raters import RATER_PATTERN
    from cm_lightning.uncertainty import MCDropout
    from cm_lightning.variability.command import compare_variability

    page = compare_variability(
        runs,
        output,
        raters=raters,
        pattern=rater_pattern or RATER_PATTERN,
        consensus=consensus,
        settings=MCDropout(samples, batch_size),
        frames=frames,
        sampled=sampled,
        data_root=data_root,
        accelerator=accelerator,
        baseline=baseline,
        compare=compare,
        family=family,
    )
    print(f"Wrote {page}.")


def run(argv: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        argv: Command line after ``variability``.
    """
    run_function("variability", variability, argv)
