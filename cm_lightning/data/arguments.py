"""What the data module's arguments must be, alone and together."""

from collections.abc import Mapping

from cm_lightning.errors import InputError
from cm_lightning.io import Axes


def check_sizes(
    spatial_dims: int,
    axes: Axes,
    spatial_size: tuple[int, ...] | None,
    patch_size: tuple[int, ...] | None,
    spacing: tuple[float, ...] | None,
) -> None:
    """Check the sizes, and that they have as many axes as the images.

    Args:
        spatial_dims: 2 for frames, 3 for volumes.
        axes: File axes of the images.
        spatial_size: Grid of whole images, or None.
        patch_size: Size of patches, or None.
        spacing: Common voxel size, or None.

    Raises:
        InputError: They do not fit together.
    """
    if (spatial_size is None) == (patch_size is None):
        raise InputError(
            "Give either data.spatial_size (whole images on one grid) or data.patch_size (patches), "
            f"found {spatial_size} and {patch_size}."
        )
    for name, value in (("spatial_size", spatial_size), ("patch_size", patch_size), ("spacing", spacing)):
        if value is not None and (len(value) != spatial_dims or min(value) <= 0):
            raise InputError(f"data.{name} must be {spatial_dims} positive numbers, found {list(value)}.")
    if spacing is not None and patch_size is None:
        raise InputError("data.spacing goes with data.patch_size; with data.spatial_size the grid is given.")
    if len(axes.names) != spatial_dims:
        raise InputError(f"data.axes {axes.text!r} names {len(axes.names)} axes; data.spatial_dims is {spatial_dims}.")


def check_classes(classes: Mapping[str, int]) -> None:
    """Check that every class has a label value of its own.

    Args:
        classes: Value in the label files of every class.

    Raises:
        InputError: There is no class, or two share a value, or one has that of the background.
    """
    values = list(classes.values())
    if not values or 0 in values or len(set(values)) < len(values):
        raise InputError(
            f"data.classes must map every class to a label value of its own other than 0, found {classes}."
        )


def check_numbers(labelled_fraction: float, batch_size: int, patches_per_case: int, foreground: float) -> None:
    """Check shares and counts.

    Args:
        labelled_fraction: Share of the training patients whose labels may be used.
        batch_size: Cases in a batch.
        patches_per_case: Patches cut from every case.
        foreground: Share of the patches that are centred on a class.

    Raises:
        InputError: One of them is out of its range.
    """
    if not 0 < labelled_fraction <= 1:
        raise InputError(f"data.labelled_fraction must lie in (0, 1], found {labelled_fraction}.")
    if not 0 <= foreground <= 1:
        raise InputError(f"data.foreground must lie in [0, 1], found {foreground}.")
    if batch_size < 1 or patches_per_case < 1:
        raise InputError(
            f"data.batch_size and data.patches_per_case must be at least 1, found {batch_size} and {patches_per_case}."
        )
