"""Settings of runs as flat tables of dotted names, and which of them say what a run does."""

from pathlib import Path
from typing import Any

import yaml

Settings = dict[str, Any]

# Settings that say where a run is, not what it does.
RUN_SPECIFIC = {"ckpt_path", "config", "overwrite", "checkpoint.dirpath", "trainer.default_root_dir"}
# Settings in which the folds of one experiment may differ, each with all that is below it: where and how they run, how
# often something is drawn, and what training does not depend on.
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
)


def may_differ(key: str) -> bool:
    """Whether the folds of one experiment may differ in a setting.

    Args:
        key: Its dotted name.

    Returns:
        Whether it, or what it is a part of, is one of :data:`MAY_DIFFER`.
    """
    return any(key == name or key.startswith(f"{name}.") for name in MAY_DIFFER)


def read_settings(path: Path) -> dict[str, Any]:
    """Read settings from a YAML file.

    Args:
        path: The file.

    Returns:
        The settings, nested.
    """
    settings: dict[str, Any] = yaml.safe_load(path.read_text())
    return settings


def conflicting_settings(before: Settings, after: Settings) -> dict[str, tuple[Any, Any]]:
    """Find what keeps two runs from being folds of one experiment.

    Args:
        before: Flat settings of one run.
        after: Flat settings of the other.

    Returns:
        Both values of every setting that both have, and in which the folds of an experiment may not differ.
    """
    return {
        key: (before[key], after[key])
        for key in sorted(before.keys() & after.keys())
        if before[key] != after[key] and not may_differ(key)
    }


def flatten(tree: Any, prefix: str = "") -> Settings:
    """Flatten nested settings to dotted names."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: Settings = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
