"""``dashboard``: build the workspace of W&B that shows a project's runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def run(argv: Sequence[str]) -> None:
    """Build the workspace, and save it or write it to a file.

    Args:
        argv: Command line after ``dashboard``.

    Raises:
        InputError: wandb-workspaces is not installed, W&B does not take the workspace, or the configuration is not one
            of ``fit``.
    """
    parser = argparse.ArgumentParser(
        prog="cm_lightning dashboard",
        description="Save a workspace of Weights & Biases that shows a project's runs: means and standard deviations "
        "over folds, classes, uncertainty, pictures, the worst cases, cross-validations. Saving again makes another.",
    )
    parser.add_argument("--entity", required=True, help="User or team that owns the project.")
    parser.add_argument("--project", required=True, help="The project.")
    parser.add_argument("--name", default="cm_lightning", help="The workspace's name.")
    named = parser.add_mutually_exclusive_group()
    named.add_argument("--classes", nargs="+", help="Names of the classes; by default the muscles.")
    named.add_argument("--config", action="append", type=Path, help="As for fit: take its classes; may be repeated.")
    parser.add_argument(
        "--dry_run",
        "--dry-run",
        type=Path,
        metavar="FILE",
        help="Write the workspace to a JSON file, and send nothing.",
    )
    options = parser.parse_args(list(argv))

    from cm_lightning.tracking.dashboard import MUSCLES, build_dashboard, save_dashboard, write_dashboard

    classes = options.classes or MUSCLES
    if options.config:
        from cm_lightning.cli import resolve_settings

        settings = resolve_settings([f"--config={path}" for path in options.config])
        prefix = "data.classes."
        classes = [key.removeprefix(prefix) for key in settings if key.startswith(prefix)]
    workspace = build_dashboard(options.entity, options.project, options.name, classes)
    if options.dry_run is None:
        save_dashboard(workspace)
    else:
        panels = write_dashboard(workspace, options.dry_run)
        print(f"Wrote {panels} panels to {options.dry_run}.")
