"""``dashboard``: create a W&B workspace that shows the runs of a project."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from cm_lightning.parsing import check_exclusive, run_function


def dashboard(
    *,
    entity: str,
    project: str,
    name: str = "cm_lightning",
    classes: list[str] | None = None,
    fit_config: list[Path] | None = None,
    dry_run: Path | None = None,
) -> None:
    """Create a workspace of Weights & Biases that shows the runs of a project.

    It shows means and standard deviations over folds, classes, uncertainty, pictures, the worst cases and
    cross-validations. Every call creates a new workspace.

    Args:
        entity: User or team that owns the project.
        project: Name of the project.
        name: Name of the workspace.
        classes: Names of the classes; the three muscles by default.
        fit_config: Configuration files of fit from which the class names are read.
        dry_run: JSON file to which the workspace is written instead of sending it to W&B.
    """
    check_exclusive(classes=classes, fit_config=fit_config)

    from cm_lightning.tracking.dashboard import MUSCLES, build_dashboard, save_dashboard, write_dashboard

    if fit_config is not None:
        from cm_lightning.cli import resolve_settings

        settings = resolve_settings([f"--config={path}" for path in fit_config])
        prefix = "data.classes."
        classes = [key.removeprefix(prefix) for key in settings if key.startswith(prefix)]
    workspace = build_dashboard(entity, project, name, classes or MUSCLES)
    if dry_run is None:
        save_dashboard(workspace)
    else:
        print(f"Wrote {write_dashboard(workspace, dry_run)} panels to {dry_run}.")


def run(argv: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        argv: Command line after ``dashboard``.
    """
    run_function("dashboard", dashboard, _rename(argv))


def _rename(argv: Sequence[str]) -> list[str]:
    """Rename ``--config`` to ``--fit_config``, its current name, where the file is a configuration of ``fit``."""
    split = [part for argument in argv for part in _split_config(argument)]
    files: list[str] = []
    others: list[str] = []
    for argument, previous in zip(split, ["", *split], strict=False):
        if previous == "--config" and _is_fit_config(Path(argument)):
            others.pop()
            files.append(argument)
        else:
            others.append(argument)
    if not files:
        return others
    print(f"dashboard: used --fit_config for {', '.join(files)}, because --config is for options of dashboard.")
    return [*others, "--fit_config", *files]


def _split_config(argument: str) -> list[str]:
    """Split ``--config=FILE`` into option and value; return other arguments unchanged."""
    return argument.split("=", 1) if argument.startswith("--config=") else [argument]


def _is_fit_config(path: Path) -> bool:
    """Whether a file contains settings of ``fit``."""
    try:
        content = yaml.safe_load(path.read_text()) if path.is_file() else None
    except yaml.YAMLError:
        return False
    return isinstance(content, dict) and not {"data", "model", "trainer", "solver"}.isdisjoint(content)
