"""``report``: tables, statistics and figures of finished runs, on one page."""

from collections.abc import Sequence
from pathlib import Path

from cm_lightning.parsing import check_exclusive, run_function


def report(
    runs: list[Path],
    output: Path = Path("report"),
    baseline: str | None = None,
    compare: list[str] | None = None,
) -> None:
    """Write one page, with its tables and figures as files beside it, from the folders of experiments.

    Args:
        runs: Folders of experiments, or folders that hold such.
        output: Folder to write to.
        baseline: Model that all others are compared with; by default the study's.
        compare: The planned comparisons, each MODEL=BASELINE, corrected for together; a model may have several
            baselines. In place of a baseline.
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
