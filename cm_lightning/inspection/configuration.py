"""A starting configuration as YAML, in which a comment gives the reason of every setting."""

import re
import textwrap
from pathlib import Path
from typing import Any

import yaml

from cm_lightning.inspection.data_set import DataSet

WIDTH = 120
PATCHES_PER_CASE = 2
# Probabilities of nnU-Net for changes of the quality of images.
QUALITY = {"noise": 0.1, "blur": 0.2, "low_resolution": 0.25, "contrast": 0.15, "gamma": 0.3}


def configuration(path: Path, data: DataSet) -> str:
    """Return a configuration as text.

    Args:
        path: File to which it will be written, for its comments.
        data: Inspected data set with proposed settings.

    Returns:
        YAML with comments.
    """
    network = data.network
    assert network is not None
    out = _Writer()
    count = len(data.findings)
    out.comment(f"Starting configuration for {count} cases, written by `python -m cm_lightning inspect`. Train with:")
    out.comment(f"  python -m cm_lightning fit --config {path}")
    out.comment(
        "The comments say what was seen in the data. Check the names of the classes, the axes and the patients."
    )
    fatal = sum(problem.is_fatal for problem in data.all_problems)
    if fatal:
        out.comment(
            f"fit will refuse this data set: the inspection found {fatal} problems that must be corrected first."
        )
    out.setting(0, "experiment", experiment_name(data.root), "folder of the results below outputs/")
    out.blank()
    out.setting(0, "solver", None, "confidence maps: the settings of the study")
    out.setting(1, "alpha", 0.5, "attenuation; the mean confidence decreases with it")
    out.setting(1, "beta", 100.0, "sensitivity to edges")
    out.setting(1, "gamma", 0.05, "penalty of lateral steps")
    out.blank()
    out.setting(0, "trainer")
    out.setting(1, "max_epochs", network.max_epochs.value, network.max_epochs.reason)
    out.setting(1, "accelerator", "auto", "the GPU if there is one")
    out.setting(1, "devices", 1)
    out.setting(1, "log_every_n_steps", 1)
    if network.has_bf16:
        out.setting(1, "precision", "bf16-mixed", "this GPU computes in bfloat16")
    out.blank()
    _write_model(out, data)
    out.blank()
    _write_data(out, data)
    return out.text


def experiment_name(root: Path) -> str:
    """Return the name of the experiment: that of the data set, without characters that are special in paths."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", root.resolve().name).strip("_-")
    return name or "first"


def _write_model(out: "_Writer", data: DataSet) -> None:
    network = data.network
    assert network is not None
    out.setting(0, "model")
    out.setting(1, "class_path", "cm_lightning.tasks.SegmentationTask")
    out.setting(1, "init_args")
    out.setting(2, "network", "DynUNet", "the U-Net of nnU-Net, with the depth of its rules")
    out.setting(2, "network_options")
    out.setting(3, "channels", network.channels)
    out.setting(3, "strides", network.strides)
    out.setting(3, "dropout", 0.1)
    out.setting(3, "deep_supervision", True, "coarse levels are trained as well")
    out.setting(2, "input_mode", "1ch", "image only; 2ch: image and confidence map, which was worse for nerves")
    out.setting(2, "loss", "diceCE")
    out.setting(2, "batch_dice", network.batch_dice.value, network.batch_dice.reason)
    out.setting(2, "dice_background", False, "as in nnU-Net; small classes have larger gradients")
    out.setting(2, "learning_rate", 3e-3)
    out.setting(2, "schedule", "polynomial", "decay to 0 at the last epoch")
    axes = (["lateral"] if network.flip.value else []) + (["elevation"] if network.spatial_dims == 3 else [])
    out.setting(2, "mirroring", axes, "test and predict average mirrored versions" if axes else network.flip.reason)


def _write_data(out: "_Writer", data: DataSet) -> None:
    network = data.network
    assert network is not None
    out.setting(0, "data")
    is_relative = not data.root.is_absolute()
    out.setting(1, "root", str(data.root), "relative to the folder in which fit is started" if is_relative else "")
    out.setting(1, "layout", data.layout, "detected")
    out.setting(1, "axes", data.axes.value, data.axes.reason)
    out.setting(1, "classes", None, data.classes.reason)
    for name, value in data.classes.value.items():
        labels = sum(value in case.values for case in data.findings)
        out.setting(2, name, value, f"in {labels} of {len(data.findings)} labels")
    out.setting(1, "spatial_dims", network.spatial_dims)
    out.setting(1, "patch_size" if network.is_patch else "spatial_size", network.size.value, network.size.reason)
    if network.is_patch:
        out.setting(1, "patches_per_case", PATCHES_PER_CASE)
        out.setting(1, "foreground", 0.5, "fraction of the patches that are centred on a class")
    if network.spacing is not None:
        out.setting(1, "spacing", network.spacing.value, network.spacing.reason)
    out.setting(1, "domain", data.domain.value, data.domain.reason)
    if data.patient_pattern.value is not None:
        out.setting(1, "patient_pattern", data.patient_pattern.value, data.patient_pattern.reason)
    elif not data.has_patients:
        reason = (
            f"{data.patient_pattern.reason}: folds are made of images, with near-duplicates in one fold "
            f"({data.split.number} groups). Set patient_pattern or patient_table instead if you know the patients"
        )
        out.setting(1, "image_folds", True, reason)
    out.setting(1, "split", "kfold", "official would use the sets of the data set" if _is_official(data) else "")
    out.setting(1, "n_folds", data.n_folds.value, data.n_folds.reason)
    out.setting(1, "fold", 0)
    out.setting(1, "split_seed", 0)
    batch = network.batch_size.value
    per_case = PATCHES_PER_CASE if network.is_patch else 1
    out.setting(1, "batch_size", max(1, batch // per_case), network.batch_size.reason)
    out.setting(1, "num_workers", 0, "prepared cases are kept in memory")
    out.setting(1, "confidence_mode", "native", "computed once and cached; test reports errors by confidence")
    out.setting(1, "augmentation")
    out.setting(2, "gain", 3.0)
    out.setting(2, "time_gain", 2.0)
    out.setting(2, "speckle", 1.0)
    out.setting(2, "flip", network.flip.value, network.flip.reason)
    out.setting(2, "rotation", 15.0)
    out.setting(2, "scaling", 0.25)
    out.setting(2, "elastic", 0.01)
    for name, probability in QUALITY.items():
        out.setting(2, name, probability)


def _is_official(data: DataSet) -> bool:
    return {"train", "test"} <= {case.case.subset for case in data.findings}


class _Writer:
    """Writer of YAML with comments.

    Attributes:
        text: What has been written so far.
    """

    def __init__(self) -> None:
        self.text = ""

    def comment(self, text: str) -> None:
        """Write a comment."""
        self.text += f"# {text}\n"

    def blank(self) -> None:
        """Write an empty line."""
        self.text += "\n"

    def setting(self, level: int, key: str, value: Any = None, reason: str = "") -> None:
        """Write a setting, with its reason beside it, or above it if it is long.

        Args:
            level: Level of indentation.
            key: Name of the setting.
            value: Its value; None for the name of a group.
            reason: The reason, or "".
        """
        indent = "  " * level
        line = f"{indent}{_scalar(key)}:" + ("" if value is None else f" {_scalar(value)}")
        if reason and len(line) + len(reason) + 4 > WIDTH:
            prefix = f"{indent}# "
            self.text += textwrap.fill(reason, WIDTH, initial_indent=prefix, subsequent_indent=prefix) + "\n"
        elif reason:
            line += f"  # {reason}"
        self.text += f"{line}\n"


def _scalar(value: Any) -> str:
    """Return a value as YAML on one line, with quotes where they are needed."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").strip()
