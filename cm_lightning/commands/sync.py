"""``sync``: upload W&B runs that were logged offline."""

from collections.abc import Sequence
from pathlib import Path

from cm_lightning.parsing import run_function


def sync(folders: list[Path], pictures: bool = False, dry_run: bool = False) -> None:
    """Upload the offline W&B runs of folds, experiments or whole output folders.

    Unlike the command ``wandb sync``, it also uploads the tables of folders that were copied from another machine.

    Args:
        folders: Folders of folds or experiments, or folders that contain them.
        pictures: Whether to upload the pictures of cases, which show patients. By default they stay on this machine.
        dry_run: Only correct the paths in the files of the runs and list them, without uploading them.
    """
    from cm_lightning.tracking.sync import sync

    sync(folders, pictures, dry_run)


def run(argv: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        argv: Command line after ``sync``.
    """
    run_function("sync", sync, argv)
