"""The workspace of Weights & Biases in which runs are looked at, built from code."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cm_lightning.errors import InputError

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

MUSCLES = ("soleus", "gastrocnemius_medialis", "gastrocnemius_lateralis")
# A workspace has one set of runs for all its sections. The summary of a cross-validation is in it, as its own section
# could not be filled otherwise, and in the same group as its folds. It does not change their means and deviations:
# means are over the runs that have a key, and the panels of folds show keys that it lacks, and the other way round.
JOB_TYPES = ("fold", "cv-summary")
COLUMNS = 3


class Shown(NamedTuple):
    """A panel.

    Attributes:
        kind: Lines over epochs, bars, images, or a table.
        title: Its heading. Tables have none.
        keys: What it shows.
    """

    kind: Literal["lines", "bars", "media", "table"]
    title: str
    keys: list[str]


def plan_sections(classes: Sequence[str]) -> dict[str, list[Shown]]:
    """Say what the workspace shows.

    What only some runs have is not shown: a panel without data looks like a fault. So neither ``memory/gpu_peak_gb``,
    which needs a GPU, nor ``cm/solve_ms_per_frame``, which needs maps that are solved during training.

    Args:
        classes: Names of the classes.

    Returns:
        Panels of every section, in order.
    """

    def of_classes(prefix: str) -> list[str]:
        return [f"{prefix}/{name}" for name in ("mean", *classes)]

    return {
        "overview": [
            Shown("lines", "Dice, validation", ["val/dice/mean"]),
            Shown("bars", "Best Dice, validation", ["best/val/dice/mean"]),
            Shown("bars", "Dice, test", ["test/dice/mean"]),
        ],
        "training": [
            Shown("lines", "Loss", ["train/loss", "val/loss"]),
            Shown("lines", "Learning rate", ["train/lr"]),
            Shown("lines", "Cases per second", ["time/cases_per_s"]),
        ],
        "classes": [
            Shown("lines", "Dice by class, validation", of_classes("val/dice")),
            Shown("bars", "Dice by class, test", of_classes("test/dice")),
            Shown("bars", "Average surface distance by class, test", of_classes("test/asd")),
            Shown(
                "lines",
                "Precision, miss rate and fall-out, validation",
                [f"val/{name}/mean" for name in ("precision", "miss_rate", "fall_out")],
            ),
            Shown("lines", "Surface distances, validation", ["val/asd/mean", "val/hd/mean"]),
        ],
        "uncertainty": [
            Shown("lines", "Entropy of MC dropout by class", of_classes("mc/entropy")),
            Shown("lines", "Calibration error of MC dropout", ["mc/ece"]),
            Shown("lines", "Mean confidence", ["cm/mean"]),
        ],
        "media": [
            Shown(
                "media",
                "Validation cases",
                [f"media/val/{name}" for name in ("overlay", "confidence", "error", "entropy")],
            ),
            Shown("media", "Reliability and confusion", ["plots/reliability", "plots/confusion"]),
        ],
        # A run logs its table sorted; the tables of the folds follow one another.
        "cases (worst first)": [Shown("table", "Test cases", ["tables/test_cases"])],
        "cross-validation": [
            Shown(
                "bars", "Dice of all folds, mean and standard deviation over patients", ["cv/dice/mean", "cv/dice/std"]
            ),
            Shown("media", "Cases of all folds", ["plots/cv_box"]),
            Shown("table", "Folds", ["tables/cv_folds"]),
        ],
    }


def build_dashboard(entity: str, project: str, name: str, classes: Sequence[str]) -> "Workspace":
    """Build the workspace; nothing is sent.

    Runs are grouped by experiment, so that lines and bars are means over folds, with their standard deviation.

    Args:
        entity: User or team that owns the project.
        project: The project.
        name: The workspace's name.
        classes: Names of the classes.

    Returns:
        The workspace; the same for the same arguments.

    Raises:
        InputError: wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise InputError(
            "The dashboard is built with wandb-workspaces, which is not installed; expected it from "
            "pip install 'cm_lightning[dashboard]'."
        ) from None
    over_folds: dict[str, Any] = {
        "groupby": "Group",
        "groupby_aggfunc": "mean",
        "groupby_rangefunc": "stddev",
    }

    def make_panel(section: str, shown: Shown) -> Any:
        match shown.kind:
            case "lines":
                panel = wr.LinePlot(title=shown.title, x="epoch", y=shown.keys, title_x="epoch", **over_folds)
            case "bars":
                panel = wr.BarPlot(title=shown.title, metrics=shown.keys, **over_folds)
            case "media":
                panel = wr.MediaBrowser(title=shown.title, media_keys=shown.keys, num_columns=len(shown.keys))
            case "table":
                panel = wr.WeavePanelSummaryTable(table_name=shown.keys[0])
        # The library's are random, and two builds could not be compared.
        panel._id = hashlib.sha256(f"{section}/{shown.title}".encode()).hexdigest()[:12]
        return panel

    sections = []
    for heading, planned in plan_sections(classes).items():
        columns = min(COLUMNS, len(planned))
        layout = ws.SectionLayoutSettings(columns=columns, rows=math.ceil(len(planned) / columns))
        panels = [make_panel(heading, shown) for shown in planned]
        sections.append(ws.Section(name=heading, panels=panels, is_open=True, layout_settings=layout))
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=30),  # Table 1 alone has twelve experiments
        runset_settings=ws.RunsetSettings(
            filters=f"Metric('JobType') in {list(JOB_TYPES)}", groupby=[ws.Metric("Group")]
        ),
    )


def panel_keys(workspace: "Workspace") -> set[str]:
    """Collect what a workspace shows.

    Args:
        workspace: Any workspace.

    Returns:
        Keys of metrics, images and tables of all panels, without the x axes.
    """
    found: set[str] = set()
    for panel in (panel for section in workspace.sections for panel in section.panels):
        for attribute in ("y", "metrics", "media_keys"):
            # A workspace that was loaded has objects in place of names.
            found.update(getattr(key, "name", key) for key in getattr(panel, attribute, None) or [])
        found.update(getattr(panel, attribute) for attribute in ("metric", "table_name") if hasattr(panel, attribute))
    return found


def write_dashboard(workspace: "Workspace", path: Path) -> int:
    """Write a workspace to a file, and send nothing.

    Args:
        workspace: Any workspace.
        path: JSON file to write.

    Returns:
        The number of panels.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.loads(workspace._to_model().model_dump_json(by_alias=True))
    path.write_text(json.dumps(content, indent=2) + "\n")
    return sum(len(section.panels) for section in workspace.sections)


def save_dashboard(workspace: "Workspace") -> None:
    """Save a workspace in W&B, which prints its address.

    Args:
        workspace: Any workspace.

    Raises:
        InputError: W&B does not take it.
    """
    try:
        workspace.save()  # prints the address
    except Exception as error:  # of wandb, its service, or the library: they have no common class
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise InputError(
            f"The workspace {workspace.name} could not be saved to {workspace.entity}/{workspace.project}: {reason}. "
            "Expected a login (wandb login, or WANDB_API_KEY) that may write there, and a network; --dry_run FILE "
            "needs neither."
        ) from error
