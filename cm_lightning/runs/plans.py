"""Settings of a run that a plan chooses from the data and the memory of the machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from cm_lightning.data.layouts import default_axes, find_cases
from cm_lightning.errors import InputError
from cm_lightning.io import Axes
from cm_lightning.models.checkpoints import read_checkpoint
from cm_lightning.planning import Plan, find_resources, make_plan, read_fingerprint
from cm_lightning.planning.plan import NETWORK
from cm_lightning.planning.resources import GIB

SIZES = ("spatial_size", "patch_size")
# The network of the plan; all others need sizes that are given.
PLANNED = "DynUNet"


def complete_settings(config: Namespace, checkpoint: Path | None = None, is_training: bool = True) -> str:
    """Set the sizes of grid, network and batch and the number of epochs, where they are not set.

    Args:
        config: Settings of a subcommand, which are changed in place.
        checkpoint: Checkpoint whose sizes are used instead of those of a plan, or None.
        is_training: Whether the subcommand is ``fit``. The others need only the sizes of the checkpoint.

    Returns:
        One line for people; empty if nothing was planned.

    Raises:
        InputError: The data set has no images, they cannot be planned for, or the memory is too small.
    """
    data, model = config.data, config.model.init_args
    if checkpoint is not None and not any(data.get(name) for name in SIZES):
        _set_sizes(config, _sizes_of(checkpoint))
    if not is_training:
        data.batch_size = data.batch_size or 1
        return ""
    size = next((data[name] for name in SIZES if data.get(name)), None)
    options = dict(model.get("network_options") or {})
    if size and data.batch_size and config.trainer.max_epochs and {"channels", "strides"} <= options.keys():
        return ""
    if model.get("network", PLANNED) != PLANNED:
        raise InputError(
            f"plan chooses the sizes of a {PLANNED}, but model.network is {model.network!r}; expected plan false, and "
            "data.spatial_size or data.patch_size, data.batch_size and trainer.max_epochs."
        )
    root = Path(data.root)
    axes = Axes(data.axes or default_axes(root, data.layout, data.spatial_dims))
    cases = find_cases(root, data.layout, data.patient_pattern, data.patient_table)
    resources = find_resources(may_use_gpu=config.trainer.accelerator != "cpu")
    # A tenth of the other cases is used for validation.
    training = max(1, round(0.9 * (1 - 1 / data.n_folds) * len(cases)))
    has_patches = bool(data.patch_size) or (len(axes.names) == 3 and not data.spatial_size)
    per_case = data.patches_per_case if has_patches else 1
    batch = None if data.batch_size is None else data.batch_size * per_case
    fingerprint = read_fingerprint(cases, axes, data.spacing_mm)
    if data.spatial_size:
        sides = zip(fingerprint.shape, fingerprint.spacing, data.spatial_size, strict=True)
        fingerprint = fingerprint.resampled([old * step / new for old, step, new in sides])
    elif data.spacing:
        fingerprint = fingerprint.resampled(data.spacing)
    plan = make_plan(fingerprint, resources, size, batch, training)
    if not size:
        _set_sizes(config, {"patch_size" if plan.is_patch else "spatial_size": plan.size, "spacing": plan.spacing})
    data.batch_size = max(1, plan.batch_size // per_case)
    config.trainer.max_epochs = config.trainer.max_epochs or plan.max_epochs
    model.network_options = {**NETWORK, "channels": plan.channels, "strides": plan.strides, **options}
    for name in ("channels", "strides"):
        model.network_options[name] = [list(v) if isinstance(v, tuple) else v for v in model.network_options[name]]
    if resources.has_bf16 and config.trainer.precision is None:
        config.trainer.precision = "bf16-mixed"
    return _describe(plan, config.trainer.max_epochs, resources.device)


def _describe(plan: Plan, epochs: int, device: str) -> str:
    kind = "patches" if plan.is_patch else "whole images"
    return (
        f"Plan: {kind} of {' x '.join(map(str, plan.size))} voxels, {plan.batch_size} per batch, a U-Net with "
        f"{len(plan.channels)} levels, {epochs} epochs; about {plan.memory / GIB:.2g} GiB on the {device}."
    )


def _set_sizes(config: Namespace, sizes: Mapping[str, Any]) -> None:
    """Set sizes of the data, and those of the model that are equal to them."""
    for name, value in sizes.items():
        config.data[name] = None if value is None else list(value)
        if name in SIZES:
            config.model.init_args[name] = config.data[name]


def _sizes_of(checkpoint: Path) -> dict[str, Any]:
    """Return the sizes with which the network of a checkpoint was trained."""
    settings = (read_checkpoint(checkpoint, "--ckpt_path").get("UltrasoundDataModule") or {}).get("settings") or {}
    return {name: settings.get(name) for name in (*SIZES, "spacing")}
