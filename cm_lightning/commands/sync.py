"""``sync``: upload runs that were logged offline to W&B."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def run(argv: Sequence[str]) -> None:
    """Upload the offline runs in folders of runs, wherever they were written.

    Args:
        argv: Command line after ``sync``.

    Raises:
        InputError: A folder has no offline runs, or wandb did not upload them.
    """
    parser = argparse.ArgumentParser(
        prog="cm_lightning sync",
        description="Upload the offline W&B runs of folds, experiments or whole output folders, also where these were "
        "copied from another machine: wandb's own sync looks for the tables where they were first written.",
    )
    parser.add_argument("folders", nargs="+", type=Path, help="Folders of runs.")
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="List the runs and upload nothing.")
    options = parser.parse_args(list(argv))

    from cm_lightning.tracking.sync import sync

    sync(options.folders, options.dry_run)
