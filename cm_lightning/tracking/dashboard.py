"""Workspace of Weights & Biases for the runs of this project."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cm_lightning.errors import InputError
from cm_lightning.writing import write_text

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

MUSCLES = ("soleus", "gastrocnemius_medialis", "gastrocnemius_lateralis")
# All sections of a workspace show the same set of runs. It includes the summary run of a cross-validation, which is in
# the same group as its folds, because its section would be empty otherwise. It does not affect means and standard
# deviations over folds: they are computed over runs that contain a key, and no key is in both folds and summary.
JOB_TYPES = ("fold", "cv-summary")
COLUMNS = 3


class PlannedPanel(NamedTuple):
    """Panel of a workspace.

    Attributes:
        kind: Lines over epochs, bars, images, or a table.
        title: Title, which tables do not show.
        keys: Logged keys that the panel shows.
    """

    kind: Literal["lines", "bars", "media", "table"]
    title: str
    keys: list[str]


def plan_sections(classes: Sequence[str]) -> dict[str, list[PlannedPanel]]:
    """List the panels of the workspace.

    Keys that only some runs contain are left out, since panels without data look like errors: ``memory/gpu_peak_gb``,
    which needs a GPU, and ``cm/solve_ms_per_frame``, which needs maps that are computed during training.

    Args:
        classes: Names of the classes.

    Returns:
        Panels by the name of their section, in order.
    """

    def per_class(prefix: str) -> list[str]:
        return [f"{prefix}/{name}" for name in ("mean", *classes)]

    return {
        "overview": [
            PlannedPanel("lines", "Dice, validation", ["val/dice/mean"]),
            PlannedPanel("bars", "Best Dice, validation", ["best/val/dice/mean"]),
            PlannedPanel("bars", "Dice, test", ["test/dice/mean"]),
        ],
        "training": [
            PlannedPanel("lines", "Loss", ["train/loss", "val/loss"]),
            PlannedPanel("lines", "Learning rate", ["train/lr"]),
            PlannedPanel("lines", "Cases per second", ["time/cases_per_s"]),
        ],
        "classes": [
            PlannedPanel("lines", "Dice by class, validation", per_class("val/dice")),
            PlannedPanel("bars", "Dice by class, test", per_class("test/dice")),
            PlannedPanel("bars", "Average surface distance by class, test", per_class("test/asd")),
            PlannedPanel(
                "lines",
                "Precision, miss rate and fall-out, validation",
                [f"val/{name}/mean" for name in ("precision", "miss_rate", "fall_out")],
            ),
            PlannedPanel("lines", "Surface distances, validation", ["val/asd/mean", "val/hd/mean"]),
        ],
        "uncertainty": [
            PlannedPanel("lines", "Entropy of MC dropout by class", per_class("mc/entropy")),
            PlannedPanel("lines", "Calibration error of MC dropout", ["mc/ece"]),
            PlannedPanel("lines", "Mean confidence", ["cm/mean"]),
        ],
        "media": [
            PlannedPanel(
                "media",
                "Validation cases, and the worst test cases",
                [*(f"media/val/{name}" for name in ("overlay", "confidence", "error", "entropy")), "media/test/worst"],
            ),
            PlannedPanel("media", "Reliability and confusion", ["plots/reliability", "plots/confusion"]),
        ],
        # Each run logs a sorted table, and the tables of the folds are concatenated.
        "cases (worst first)": [PlannedPanel("table", "Test cases", ["tables/test_cases"])],
        "cross-validation": [
            PlannedPanel(
                "bars", "Dice of all folds, mean and standard deviation over patients", ["cv/dice/mean", "cv/dice/std"]
            ),
            PlannedPanel("media", "Cases of all folds", ["plots/cv_box"]),
            PlannedPanel("table", "Folds", ["tables/cv_folds"]),
        ],
    }


def build_dashboard(entity: str, project: str, name: str, classes: Sequence[str]) -> "Workspace":
    """Create the workspace, without uploading it.

    Runs are grouped by experiment, so that lines and bars show means and standard deviations over folds.

    Args:
        entity: User or team that owns the project.
        project: Name of the project.
        name: Name of the workspace.
        classes: Names of the classes.

    Returns:
        The workspace, which is equal for equal arguments.

    Raises:
        InputError: wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise InputError(
            "The dashboard needs the package wandb-workspaces, which is not installed; install it with "
            "pip install 'cm_lightning[dashboard]'."
        ) from None
    over_folds: dict[str, Any] = {
        "groupby": "Group",
        "groupby_aggfunc": "mean",
        "groupby_rangefunc": "stddev",
    }

    def make_panel(section: str, planned: PlannedPanel) -> Any:
        match planned.kind:
            case "lines":
                panel = wr.LinePlot(title=planned.title, x="epoch", y=planned.keys, title_x="epoch", **over_folds)
            case "bars":
                panel = wr.BarPlot(title=planned.title, metrics=planned.keys, **over_folds)
            case "media":
                panel = wr.MediaBrowser(title=planned.title, media_keys=planned.keys, num_columns=len(planned.keys))
            case "table":
                panel = wr.WeavePanelSummaryTable(table_name=planned.keys[0])
        # The library assigns random ids, so equal workspaces would differ.
        panel._id = hashlib.sha256(f"{section}/{planned.title}".encode()).hexdigest()[:12]
        return panel

    sections = []
    for heading, planned_panels in plan_sections(classes).items():
        columns = min(COLUMNS, len(planned_panels))
        layout = ws.SectionLayoutSettings(columns=columns, rows=math.ceil(len(planned_panels) / columns))
        panels = [make_panel(heading, planned) for planned in planned_panels]
        sections.append(ws.Section(name=heading, panels=panels, is_open=True, layout_settings=layout))
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=30),  # Table 1 of the study has twelve experiments
        runset_settings=ws.RunsetSettings(
            filters=f"Metric('JobType') in {list(JOB_TYPES)}", groupby=[ws.Metric("Group")]
        ),
    )


def panel_keys(workspace: "Workspace") -> set[str]:
    """Collect the logged keys that a workspace shows.

    Args:
        workspace: Any workspace.

    Returns:
        Keys of metrics, images and tables of all panels, without those of x axes.
    """
    keys: set[str] = set()
    for panel in (panel for section in workspace.sections for panel in section.panels):
        for attribute in ("y", "metrics", "media_keys"):
            # Workspaces that were loaded from a file contain objects instead of names.
            keys.update(getattr(key, "name", key) for key in getattr(panel, attribute, None) or [])
        keys.update(getattr(panel, attribute) for attribute in ("metric", "table_name") if hasattr(panel, attribute))
    return keys


def write_dashboard(workspace: "Workspace", path: Path) -> int:
    """Write a workspace to a file, without uploading it.

    Args:
        workspace: Any workspace.
        path: JSON file.

    Returns:
        Number of panels.
    """
    content = json.loads(workspace._to_model().model_dump_json(by_alias=True))
    write_text(path, json.dumps(content, indent=2) + "\n")
    return sum(len(section.panels) for section in workspace.sections)


def save_dashboard(workspace: "Workspace") -> None:
    """Upload a workspace to W&B, which prints its address.

    Args:
        workspace: Any workspace.

    Raises:
        InputError: The upload fails.
    """
    try:
        workspace.save()
    except Exception as error:  # Errors of W&B and its libraries have no common class.
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise InputError(
            f"The workspace {workspace.name} could not be saved to {workspace.entity}/{workspace.project}: {reason}. "
            "Expected a network connection and a login (wandb login, or WANDB_API_KEY) with write access; "
            "--dry_run FILE needs neither."
        ) from error
