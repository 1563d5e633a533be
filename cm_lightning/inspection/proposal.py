"""Settings that are proposed for a data set, each with its reason."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Generic, TypeVar

from cm_lightning.confidence import ProbeName
from cm_lightning.confidence.domain import DOUBTFUL_SCORE
from cm_lightning.data.description import described_labels, read_description
from cm_lightning.data.layouts import LayoutName
from cm_lightning.data.phantom.anatomy import MUSCLE_CLASSES, THYROID_CLASSES
from cm_lightning.data.sides import HEADS, SIDES, sided_classes
from cm_lightning.inspection.findings import Findings
from cm_lightning.io import AXIS_NAMES, Axes
from cm_lightning.planning import Fingerprint, Resources, find_resources, make_plan
from cm_lightning.planning.resources import GIB

Setting = TypeVar("Setting")

# Regular expressions for the patient in the id of a case, with what the names look like.
PATIENT_PATTERNS = {
    r"(?i)((?:patient|pat|subject|subj|sub|volunteer|proband)[-_ ]?[0-9A-Za-z]*[0-9])": "name the patients",
    r"^([^_-]*[0-9][^_-]*)[_-]": "begin with a number that several of them share",
}
# Classes of data sets with a layout of their own.
KNOWN_CLASSES: dict[LayoutName, dict[str, int]] = {"leg3d": MUSCLE_CLASSES, "segthy": THYROID_CLASSES}
# Fewest patients of a split.
MIN_PATIENTS = 3
# Above this number of patients, five folds leave enough test patients.
PATIENTS_FOR_FIVE_FOLDS = 20
# Parts of a frame, scores and overlaps by which the insonified region is chosen.
WHOLE_COVERAGE = 0.97
BAND_OVERLAP = 0.9
MOST = 0.9


@dataclass(frozen=True)
class Choice(Generic[Setting]):
    """Value of a setting, and why it was chosen.

    Attributes:
        value: The value.
        reason: The reason, for a comment.
    """

    value: Setting
    reason: str


def propose_axes(findings: Sequence[Findings]) -> Choice[str]:
    """Propose the axes of the files: those of most cases.

    Args:
        findings: Findings of the cases, at least one of which is readable.

    Returns:
        The axes.
    """
    counts = Counter((case.axes, case.states_axes) for case in findings if case.is_readable)
    (axes, is_stated), number = counts.most_common(1)[0]
    if is_stated:
        return Choice(axes, f"as {number} of {len(findings)} files state")
    return Choice(axes, "assumed, since the files do not state their axes; the page shows whether depth points down")


def propose_classes(findings: Sequence[Findings], root: Path, layout: LayoutName) -> Choice[dict[str, int]]:
    """Propose the classes: all whole values other than 0 in the labels, with their names if they are known.

    Args:
        findings: Findings of the cases.
        root: Folder of the data set.
        layout: Its layout.

    Returns:
        Value of every class.
    """
    values = sorted({value for case in findings for value in case.foreground})
    names = {value: name for name, value in KNOWN_CLASSES.get(layout, {}).items()}
    source = "names as in the publication of this data set"
    if layout == "nnunet":
        names, source = described_names(read_description(root)), "names from dataset.json"
    classes: dict[str, int] = {}
    for value in values:
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", names.get(value, "")).strip("_")
        classes[name if name and name not in (*classes, "background") else f"class_{value}"] = value
    known = sum(1 for name, value in classes.items() if name != f"class_{value}")
    if known == len(classes) and classes:
        return Choice(classes, source)
    return Choice(classes, "the values in the labels; replace the names class_... by those of the structures")


def described_names(description: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of single label values in a description; regions of several values have none."""
    names: dict[int, str] = {}
    for name, value in described_labels(description):
        if isinstance(value, int):
            names[value] = name
        elif isinstance(value, list) and len(value) == 1 and isinstance(value[0], int):
            names.setdefault(value[0], name)
    return names


def propose_patient_pattern(ids: Sequence[str]) -> Choice[str | None]:
    """Propose a regular expression for the patient in the ids of cases.

    Args:
        ids: Ids of the cases.

    Returns:
        The expression; None if the names do not seem to contain patients.
    """
    for pattern, description in PATIENT_PATTERNS.items():
        matches = [re.search(pattern, name) for name in ids]
        patients = {match.group(1) for match in matches if match is not None}
        if None not in matches and MIN_PATIENTS <= len(patients) < len(ids):
            return Choice(pattern, f"a guess: the file names {description}, {len(patients)} patients; check it")
    return Choice(None, "the file names do not seem to contain patients")


def propose_folds(patients: int) -> Choice[int]:
    """Propose the number of folds for a number of patients or groups."""
    number = 5 if patients >= PATIENTS_FOR_FIVE_FOLDS else 3
    return Choice(number, f"every one of {patients} patients or groups is tested once")


def propose_domain(findings: Sequence[Findings]) -> Choice[ProbeName]:
    """Propose how the insonified region is determined.

    Args:
        findings: Findings of the cases.

    Returns:
        The domain.
    """
    regions = [case.region for case in findings if case.region is not None]
    if not regions:
        return Choice("whole", "no region was found")
    reliable = [region for region in regions if region.score >= DOUBTFUL_SCORE]
    if len(reliable) < len(regions) / 2:
        score = f"most regions that were found are doubtful, median score {median(r.score for r in regions):.2f}"
        if median(region.black_band_coverage for region in regions) < WHOLE_COVERAGE:
            return Choice("linear", f"{score}; this is the rectangle inside the black background")
        return Choice("whole", f"{score}, and there is no black background; check the page")
    kinds = ", ".join(f"{number} {kind}" for kind, number in Counter(r.kind for r in regions).most_common())
    score = f"{kinds}; median score {median(region.score for region in regions):.2f}"

    def most(condition: Sequence[bool]) -> bool:
        return sum(condition) >= MOST * len(condition)

    if most([region.coverage >= WHOLE_COVERAGE for region in reliable]):
        return Choice("whole", f"the frames have no background ({score})")
    rectangles = sum(region.kind == "rectangle" for region in reliable)
    if rectangles > len(reliable) / 2 and most([region.black_band_overlap >= BAND_OVERLAP for region in reliable]):
        return Choice("linear", f"rectangles inside a black background; auto would take longer ({score})")
    return Choice("auto", f"the frames have a background ({score})")


@dataclass(frozen=True)
class Network:
    """Size of the network and of its training.

    Attributes:
        spatial_dims: Number of spatial dimensions.
        size: Size of whole images or of patches, ``(depth, lateral[, elevation])``.
        is_patch: Whether the size is that of patches.
        spacing: Voxel size to which images are resampled; None for no resampling.
        channels: Channels of the levels of the U-Net.
        strides: Strides between the levels, one number or one per axis.
        batch_size: Number of images or patches per batch.
        max_epochs: Number of epochs.
        batch_dice: Whether the Dice loss is computed over the batch.
        flip: Probability of a lateral flip, which also is the reason for mirrored predictions.
        has_bf16: Whether the GPU computes in bfloat16.
    """

    spatial_dims: int
    size: Choice[list[int]]
    is_patch: bool
    spacing: Choice[list[float]] | None
    channels: list[int]
    strides: list[int | list[int]]
    batch_size: Choice[int]
    max_epochs: Choice[int]
    batch_dice: Choice[bool]
    flip: Choice[float]
    has_bf16: bool


def propose_network(
    findings: Sequence[Findings],
    axes: str,
    classes: Mapping[str, int],
    training_cases: int,
    resources: Resources | None = None,
) -> Network:
    """Propose the sizes of a training.

    Args:
        findings: Findings of the cases, at least one of which has these axes.
        axes: Axes of the files.
        classes: Value of every class.
        training_cases: Number of training cases of a fold.
        resources: Memory for the training; by default, that of this machine.

    Returns:
        The proposal.

    Raises:
        InputError: The images are smaller than the smallest patch, or the memory is too small for any plan.
    """
    order = Axes(axes).order
    used = [case for case in findings if case.is_readable and len(case.shape) == len(order)]
    data = Fingerprint.from_sizes(
        [[case.shape[axis] for axis in order] for case in used],
        [None if case.spacing is None else [case.spacing[axis] for axis in order] for case in used],
    )
    resources = resources or find_resources()
    plan = make_plan(data, resources, training_cases=training_cases)
    extent = " x ".join(f"{side * step:.3g}" for side, step in zip(data.shape, data.spacing, strict=True))
    pixels = " x ".join(f"{side:g}" for side in data.shape)
    reason = (
        f"{', '.join(AXIS_NAMES[: data.dims])}: median {pixels} voxels, {extent} {data.unit}; "
        f"{'patches' if plan.is_patch else 'whole images'} for {resources.memory / GIB:.2g} GiB of the "
        f"{resources.device} (about {plan.memory / GIB:.2g} GiB are used), multiples of the strides of the U-Net"
    )
    steps = -(-training_cases // plan.batch_size)
    labelled = [case for case in used if case.values]
    absent = [
        name for name, value in classes.items() if sum(value not in c.values for c in labelled) > 0.1 * len(labelled)
    ]
    sided = sided_classes(classes, (*SIDES, *HEADS))
    unnamed = any(name == f"class_{value}" for name, value in classes.items())
    return Network(
        spatial_dims=data.dims,
        size=Choice(list(plan.size), reason),
        is_patch=plan.is_patch,
        spacing=None if plan.spacing is None else Choice(list(plan.spacing), "median voxel size in mm"),
        channels=list(plan.channels),
        strides=[stride[0] if len(set(stride)) == 1 else list(stride) for stride in plan.strides],
        batch_size=Choice(plan.batch_size, f"at most a twentieth of the data; about {training_cases} training cases"),
        max_epochs=Choice(plan.max_epochs, f"{steps} steps per epoch, about {steps * plan.max_epochs} steps in total"),
        batch_dice=Choice(
            True,
            f"{', '.join(absent)}: absent in more than a tenth of the labels"
            if absent
            else "over the batch, as in nnU-Net",
        ),
        flip=Choice(
            0.0 if sided else 0.5,
            f"mirroring would exchange sides ({', '.join(sided)})"
            if sided
            else "mirrored images are plausible" + ("; 0 if a class depends on the side" if unnamed else ""),
        ),
        has_bf16=resources.has_bf16,
    )
