"""``dashboard``: build the workspace of W&B that shows a project's runs."""

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
    """Save a workspace of Weights & Biases that shows a project's runs.

    It has means and standard deviations over folds, classes, uncertainty, pictures, the worst cases and
    cross-validations. Saving again makes another.

    Args:
        entity: User or team that owns the project.
        project: The project.
        name: The workspace's name.
        classes: Names of the classes; by default the muscles.
        fit_config: Configurations of fit, whose classes are taken in place of named ones.
        dry_run: Write the workspace to this JSON file, and send nothing.
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
    """Take a --config that is one of fit for --fit_config, as it was called."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    files: list[str] = []
    rest: list[str] = []
    for word, before in zip(words, ["", *words], strict=False):
        if before == "--config" and _is_of_fit(Path(word)):
            rest.pop()
            files.append(word)
        else:
            rest.append(word)
    if not files:
        return rest
    print(f"dashboard: {', '.join(files)} is a configuration of fit; expected as --fit_config, and taken so.")
    return [*rest, "--fit_config", *files]


def _is_of_fit(path: Path) -> bool:
    """Whether a file has settings of ``fit``."""
    try:
        content = yaml.safe_load(path.read_text()) if path.is_file() else None
    except yaml.YAMLError:
        return False
    return isinstance(content, dict) and not {"data", "model", "trainer", "solver"}.isdisjoint(content)
