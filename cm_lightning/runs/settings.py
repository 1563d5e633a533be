"""Settings of runs as dictionaries with dotted names, and comparison of the settings of folds."""

from pathlib import Path
from typing import Any

from cm_lightning.config_files import read_config_file
from cm_lightning.errors import InputError

Settings = dict[str, Any]

# Settings that only describe the location of a run.
RUN_SPECIFIC = {"ckpt_path", "config", "overwrite", "checkpoint.dirpath", "trainer.default_root_dir"}
# Settings, including all settings below them, that may differ between the folds of one experiment: where and how they
# run, how often pictures are drawn, and settings that do not affect training.
MAY_DIFFER = (
    *sorted(RUN_SPECIFIC),
    "output_dir",
    "data.fold",
    "data.root",
    "data.cache_dir",
    "data.num_workers",
    "data.cache_rate",
    "data.pairs_per_case",
    "data.predict_path",
    "checkpoint.filename",
    "pictures",
    "uncertainty",
    "prediction",
    "wandb",
    "tensorboard",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "model.init_args.mc_dropout",
    "model.init_args.largest_component",
    "model.init_args.temperature_scaling",
    "model.init_args.nsd_tolerance",
)


def may_differ(key: str) -> bool:
    """Return whether a setting may differ between the folds of one experiment.

    Args:
        key: Dotted name of the setting.

    Returns:
        Whether the setting or one above it is in :data:`MAY_DIFFER`.
    """
    return any(key == name or key.startswith(f"{name}.") for name in MAY_DIFFER)


def read_settings(path: Path) -> dict[str, Any]:
    """Read settings from a YAML file.

    Args:
        path: The file.

    Returns:
        Nested settings.

    Raises:
        InputError: The file contains no settings in YAML.
    """
    settings = read_config_file(path)
    if not isinstance(settings, dict):
        raise InputError(f"{path} contains {type(settings).__name__}; expected the settings of a run.")
    return settings


def conflicting_settings(before: Settings, after: Settings) -> dict[str, tuple[Any, Any]]:
    """Find differences that prevent two runs from being folds of one experiment.

    Args:
        before: Settings of the first run with dotted names.
        after: Settings of the second run with dotted names.

    Returns:
        Both values of every setting that is in both runs, differs, and must not differ between folds.
    """
    return {
        key: (before[key], after[key])
        for key in sorted(before.keys() & after.keys())
        if before[key] != after[key] and not may_differ(key)
    }


def flatten(tree: Any, prefix: str = "") -> Settings:
    """Convert nested settings to a dictionary with dotted names.

    Args:
        tree: Nested settings.
        prefix: Dotted name of the tree.

    Returns:
        Values by dotted names.
    """
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: Settings = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
