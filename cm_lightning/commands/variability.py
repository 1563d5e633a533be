"""``variability``: how networks vary and how raters do, and whether confidence predicts it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

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
) -> None:
    """Sample the test cases of finished runs with MC dropout, and compare the samples with labels of raters.

    Where and how much the samples differ is compared with the labels that several raters, or one rater several times,
    gave the same images. Without raters, the uncertainty of a network is compared with its errors. Writes one page, its
    tables and figures as files, and the numbers as CSV.

    Args:
        runs: Folders of experiments, or folders that hold such.
        raters: Folder with a folder of repeated labels for every case.
        rater_pattern: Regular expression with the groups rater and repeat, searched in the names of the label files;
            <rater>_<repeat> by default.
        consensus: How the labels of an image are made one.
        output: Folder to write to.
        sampled: Folder where samples are kept; by default in the output's folder.
        samples: Passes with dropout.
        batch_size: Samples in one pass.
        frames: Frames of every volume that are compared.
        data_root: The data set, where it is not where the runs were trained.
        accelerator: Lightning's name of the device.
        baseline: Model that all others are compared with.
        compare: The planned comparisons, each MODEL=BASELINE. In place of a baseline.
    """
    check_exclusive(baseline=baseline, compare=compare)

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
    )
    print(f"Wrote {page}.")


def run(argv: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        argv: Command line after ``variability``.
    """
    run_function("variability", variability, argv)
