"""Checks of the data module's arguments."""

import math
import os
import re

from cm_lightning.errors import InputError
from cm_lightning.io import Axes

# Number of worker processes that is accepted on any machine.
LEAST_WORKERS = 32


def check_sizes(
    spatial_dims: int,
    axes: Axes,
    spatial_size: tuple[int, ...] | None,
    patch_size: tuple[int, ...] | None,
    spacing: tuple[float, ...] | None,
) -> None:
    """Check the sizes and their numbers of axes.

    Args:
        spatial_dims: Number of spatial dimensions, 2 for frames or 3 for volumes.
        axes: File axes of the images.
        spatial_size: Size of whole images in voxels, or None.
        patch_size: Size of patches in voxels, or None.
        spacing: Common voxel size in mm, or None.

    Raises:
        InputError: A size is invalid, or the sizes cannot be combined.
    """
    if (spatial_size is None) == (patch_size is None):
        raise InputError(
            "Set either data.spatial_size (for whole images) or data.patch_size (for patches); found "
            f"{spatial_size} and {patch_size}."
        )
    for name, size in (("spatial_size", spatial_size), ("patch_size", patch_size)):
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if size is not None and 4 * math.prod(size) > available:
            raise InputError(
                f"data.{name} {list(size)} needs {4 * math.prod(size) / 2**30:.0f} GiB for a single image, but this "
                f"machine has {available / 2**30:.0f} GiB of memory; expected a smaller size."
            )
    for name, value in (("spatial_size", spatial_size), ("patch_size", patch_size), ("spacing", spacing)):
        if value is not None and (len(value) != spatial_dims or min(value) <= 0):
            raise InputError(f"data.{name} must be {spatial_dims} positive numbers, found {list(value)}.")
    if spacing is not None and patch_size is None:
        raise InputError("data.spacing needs data.patch_size, since data.spatial_size already defines the grid.")
    if len(axes.names) != spatial_dims:
        raise InputError(
            f"data.axes {axes.text!r} has {len(axes.names)} axes, but data.spatial_dims is {spatial_dims}; expected "
            "equal numbers."
        )


def check_pattern(pattern: str | None) -> None:
    """Check the regular expression for patients.

    Args:
        pattern: Regular expression, or None.

    Raises:
        InputError: It is not valid.
    """
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise InputError(
            f"The patient pattern {pattern!r} (data.patient_pattern) is no regular expression: {error}."
        ) from error


def check_loading(num_workers: int, cache_rate: float) -> None:
    """Check how cases are loaded.

    Args:
        num_workers: Number of worker processes of a data loader.
        cache_rate: Fraction of the cases that are kept in memory.

    Raises:
        InputError: A value is out of its range.
    """
    most = max(LEAST_WORKERS, 4 * (os.cpu_count() or 1))
    if not 0 <= num_workers <= most:
        raise InputError(
            f"data.num_workers must be from 0 to {most}, four times the number of processors, found {num_workers}."
        )
    if not 0 <= cache_rate <= 1:
        raise InputError(f"data.cache_rate must be from 0 to 1, found {cache_rate}.")


def check_batch_size(batch_size: int | None) -> int:
    """Check the number of cases per batch.

    Args:
        batch_size: Number of cases per batch.

    Returns:
        The number.

    Raises:
        InputError: It is missing or not positive.
    """
    if batch_size is None:
        raise InputError("data.batch_size is not set; expected a number, or --plan true, which chooses it.")
    if batch_size < 1:
        raise InputError(f"data.batch_size must be at least 1, found {batch_size}.")
    return batch_size


def check_numbers(labelled_fraction: float, patches_per_case: int, foreground: float) -> None:
    """Check fractions and counts.

    Args:
        labelled_fraction: Fraction of the training patients whose labels are used.
        patches_per_case: Number of patches per case.
        foreground: Fraction of the patches that are centred on a class.

    Raises:
        InputError: A value is out of its range.
    """
    if not 0 < labelled_fraction <= 1:
        raise InputError(f"data.labelled_fraction must be above 0 and at most 1, found {labelled_fraction}.")
    if not 0 <= foreground <= 1:
        raise InputError(f"data.foreground must be between 0 and 1, found {foreground}.")
    if patches_per_case < 1:
        raise InputError(f"data.patches_per_case must be at least 1, found {patches_per_case}.")
