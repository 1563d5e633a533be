"""``report``: write a page with the tables, statistics and figures of finished runs."""

from collections.abc import Sequence
from pathlib import Path

from cm_lightning.parsing import check_exclusive, run_function


def report(
    runs: list[Path],
    output: Path = Path("report"),
    baseline: str | None = None,
    compare: list[str] | None = None,
) -> None:
    """Write a page with the tables, statistics and figures of cross-validated experiments.

    The tables and figures are also written as separate files.

    Args:
        runs: Folders of experiments, or folders that contain folders of experiments.
        output: Folder of the page.
        baseline: Model with which all others are compared; the baselines of the study by default.
        compare: Planned comparisons, each MODEL=BASELINE, instead of a single baseline. A model may have several
            baselines. P values are corrected over all comparisons.
    """
    check_exclusive(baseline=baseline, compare=compare)

    from cm_lightning.evaluation.report import write_report

    page = write_report(runs, output, baseline, compare)
    print(f"Wrote {page}.")


def run(argv: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        argv: Command line after ``report``.
    """
    run_function("report", report, argv)
