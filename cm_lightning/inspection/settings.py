"""Settings of the data in a configuration, with which a data set is inspected."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cm_lightning.confidence import ProbeName
from cm_lightning.data.classes import label_values, resolve_classes
from cm_lightning.data.layouts import LayoutName, default_axes
from cm_lightning.data.splits import SplitName


@dataclass(frozen=True)
class DataSettings:
    """Settings of :class:`cm_lightning.data.UltrasoundDataModule` that an inspection checks.

    Attributes:
        layout: Folder layout.
        classes: Value of every class in segmentations, the first one of its values in the label files, and that of
            voxels to ignore.
        merged: This value, by the value in the label files.
        axes: Axes of the files.
        spatial_dims: Number of spatial dimensions.
        spacing_mm: Voxel size in mm in the order of the file axes, which replaces that of the files.
        domain: Insonified region, or a geometry file.
        patient_pattern: Regular expression for the id of a case, whose first group is the patient.
        patient_table: CSV file with the columns case and patient.
        image_folds: Whether folds of images are allowed.
        split: Kind of split.
        n_folds: Number of folds for ``kfold``.
        split_seed: Seed of the folds.
    """

    layout: LayoutName
    classes: dict[str, int]
    merged: dict[int, int]
    axes: str
    spatial_dims: int
    spacing_mm: tuple[float, ...] | None
    domain: ProbeName | Path
    patient_pattern: str | None
    patient_table: Path | None
    image_folds: bool
    split: SplitName
    n_folds: int
    split_seed: int

    @classmethod
    def from_flat(cls, settings: Mapping[str, Any]) -> "DataSettings":
        """Take the settings from those of a run.

        Args:
            settings: All settings with dotted names.

        Returns:
            The settings of the data.
        """
        data = {key.removeprefix("data."): value for key, value in settings.items() if key.startswith("data.")}
        prefix = "classes."
        given = {key.removeprefix(prefix): value for key, value in data.items() if key.startswith(prefix)}
        classes = resolve_classes(given or None, Path(data["root"]), data["layout"])
        axes = data["axes"] or default_axes(Path(data["root"]), data["layout"], data["spatial_dims"])
        table, spacing, domain = data["patient_table"], data["spacing_mm"], data["domain"]
        return cls(
            layout=data["layout"],
            classes={name: values[0] for name, values in label_values(classes).items()},
            merged={value: values[0] for values in label_values(classes).values() for value in values},
            axes=axes,
            spatial_dims=data["spatial_dims"] or len(axes.split()),
            spacing_mm=None if spacing is None else tuple(spacing),
            domain=domain if domain in ("whole", "linear", "convex", "auto") else Path(domain),
            patient_pattern=data["patient_pattern"],
            patient_table=None if table is None else Path(table),
            image_folds=data["image_folds"],
            split=data["split"],
            n_folds=data["n_folds"],
            split_seed=data["split_seed"],
        )
