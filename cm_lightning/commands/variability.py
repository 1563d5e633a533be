"""``variability``: how networks vary and how raters do, and whether confidence predicts it."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def run(argv: Sequence[str]) -> None:
    """Compare the variability of trained networks with that of raters.

    Args:
        argv: Command line after ``variability``.

    Raises:
        InputError: None of the runs can be sampled, or the raters' labels not be read.
    """
    parser = argparse.ArgumentParser(
        prog="cm_lightning variability",
        description="Sample the test cases of finished runs with MC dropout, and compare where and how much the "
        "samples differ with the labels that several raters, or one several times, gave the same images. Without "
        "raters: what a network's doubt says of its errors. Writes one page, its tables and figures as files, and the "
        "numbers as CSV.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="Folders of experiments, or folders that hold such.")
    parser.add_argument("--raters", type=Path, help="Folder with a folder of repeated labels for every case.")
    parser.add_argument(
        "--rater_pattern", help="How a file's name tells its rater and the repeat; <rater>_<repeat>.ext by default."
    )
    parser.add_argument("--consensus", choices=["majority", "staple"], default="majority", help="Of the labels.")
    parser.add_argument("--output", type=Path, default=Path("variability"), help="Folder to write to.")
    parser.add_argument("--sampled", type=Path, help="Where samples are kept; by default in the output's folder.")
    parser.add_argument("--samples", type=int, default=100, help="Passes with dropout.")
    parser.add_argument("--batch_size", type=int, default=1, help="Samples in one pass.")
    parser.add_argument("--frames", type=int, default=3, help="Frames of every volume that are compared.")
    parser.add_argument("--data_root", type=Path, help="The data set, where it is not where the runs were trained.")
    parser.add_argument("--accelerator", default="auto", help="Lightning's name of the device.")
    planned = parser.add_mutually_exclusive_group()
    planned.add_argument("--baseline", help="Model that all others are compared with.")
    planned.add_argument("--compare", nargs="+", metavar="MODEL=BASELINE", help="The planned comparisons.")
    options = parser.parse_args(list(argv))

    from cm_lightning.data.raters import RATER_PATTERN
    from cm_lightning.uncertainty import MCDropout
    from cm_lightning.variability.command import compare_variability

    page = compare_variability(
        options.runs,
        options.output,
        raters=options.raters,
        pattern=options.rater_pattern or RATER_PATTERN,
        consensus=options.consensus,
        settings=MCDropout(options.samples, options.batch_size),
        frames=options.frames,
        sampled=options.sampled,
        data_root=options.data_root,
        accelerator=options.accelerator,
        baseline=options.baseline,
        compare=options.compare,
    )
    print(f"Wrote {page}.")
