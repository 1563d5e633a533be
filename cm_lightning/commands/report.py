"""``report``: tables, statistics and figures of finished runs, on one page."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def run(argv: Sequence[str]) -> None:
    """Write a report.

    Args:
        argv: Command line after ``report``.

    Raises:
        InputError: None of the runs can be read, or a model to compare is not one of them.
    """
    parser = argparse.ArgumentParser(
        prog="cm_lightning report",
        description="Write one page, with its tables and figures as files beside it, from the folders of experiments.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="Folders of experiments, or folders that hold such.")
    parser.add_argument("--output", type=Path, default=Path("report"), help="Folder to write to.")
    planned = parser.add_mutually_exclusive_group()
    planned.add_argument("--baseline", help="Model that all others are compared with; by default the study's.")
    planned.add_argument(
        "--compare",
        nargs="+",
        metavar="MODEL=BASELINE",
        help="The planned comparisons, corrected for together; a model may have several baselines.",
    )
    options = parser.parse_args(list(argv))

    from cm_lightning.evaluation.report import write_report

    page = write_report(options.runs, options.output, options.baseline, options.compare)
    print(f"Wrote {page}.")
