"""``sync``: upload runs that were logged offline to W&B."""

from collections.abc import Sequence
from pathlib import Path

from cm_lightning.parsing import run_function


def sync(folders: list[Path], dry_run: bool = False) -> None:
    """Upload the offline W&B runs of folds, experiments or whole output folders.

    Also where these were copied from another machine: wandb's own sync looks for the tables where they were first
    written.

    Args:
        folders: Folders of runs.
        dry_run: List the runs and upload nothing.
    """
    from cm_lightning.tracking.sync import sync

    sync(folders, dry_run)


def run(argv: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        argv: Command line after ``sync``.
    """
    run_function("sync", sync, argv)
