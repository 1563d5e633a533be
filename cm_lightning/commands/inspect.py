"""``inspect``: look at a data set before training, and write a configuration to start with."""

import sys
from collections.abc import Sequence
from pathlib import Path

from cm_lightning.parsing import check_exclusive, run_function


def inspect(
    root: Path,
    config: Path | None = None,
    write_config: Path | None = None,
    output: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Inspect a data set before training.

    The layout of the folder is detected, and every image and label is read. The command prints a summary and all
    problems, and writes a table of the cases (cases.csv) and a page with pictures (inspection.html). The status is 1 if
    there are problems because of which fit would refuse the data set.

    Args:
        root: Folder of the data set, in one of the layouts of data.layout.
        config: Configuration whose layout, classes, axes, region and patients are checked, instead of detected.
        write_config: File to which a configuration is written that fits the data set, with a comment for every choice.
        output: Folder of the table and the page; outputs/inspection/NAME by default, with the name of the data set.
        overwrite: Whether the file of write_config may be replaced.
    """
    check_exclusive(config=config, write_config=write_config)

    from cm_lightning.inspection import DataSettings, inspect_data_set

    settings = None
    if config is not None:
        from cm_lightning.cli import resolve_settings

        settings = DataSettings.from_flat(resolve_settings(["--config", str(config), f"--data.root={root}"]))
    folder = output or Path("outputs") / "inspection" / root.resolve().name
    report = inspect_data_set(root, folder, settings, write_config, overwrite)
    print(f"Wrote {report.table} and {report.page}.")
    if write_config is not None:
        print(f"Wrote {write_config}. Check it, and train with: python -m cm_lightning fit --config {write_config}")
    if report.refused:
        print(f"fit would refuse this data set because of {report.refused} problems; see above.", file=sys.stderr)
        sys.exit(1)


def run(argv: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        argv: Command line after ``inspect``.
    """
    run_function("inspect", inspect, argv)
