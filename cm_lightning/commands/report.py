"""``report``: write a page with the tables, statistics and figures of finished runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cm_lightning.parsing import check_exclusive, run_function


def report(
    runs: list[Path],
    output: Path = Path("report"),
    baseline: str | None = None,
    compare: list[str] | None = None,
    family: Literal["table", "page"] = "table",
    margin: float | dict[str, float] = 0.01,
) -> None:
    """Write a page with the tables, statistics and figures of cross-validated experiments.

    The tables and figures are also written as separate files.

    Args:
        runs: Folders of experiments, or folders that contain folders of experiments.
        output: Folder of the page.
        baseline: Model with which all others are compared; the baselines of the study by default.
        compare: Planned comparisons, each MODEL=BASELINE, instead of a single baseline. A model may have several
            baselines.
        family: Comparisons over which p values are corrected (Holm): those of each table, or those of all tables.
        margin: Largest difference in Dice that does not matter: models are equivalent if the 90 % confidence interval
            of their difference is within it. Margins of several quantities are given as {dice: 0.01, hd: 1}.
    """
    check_exclusive(baseline=baseline, compare=compare)

    from cm_lightning.evaluation.report import write_report

    page = write_report(
        runs, output, baseline, compare, family, margin if isinstance(margin, dict) else {"dice": margin}
    )
    print(f"Wrote {page}.")


def run(argv: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        argv: Command line after ``report``.
    """
    run_function("report", report, argv)
