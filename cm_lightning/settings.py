"""Settings of runs as flat tables of dotted names, and which of them say what a run does."""

from typing import Any

Settings = dict[str, Any]

# Settings that say where a run is, not what it does.
RUN_SPECIFIC = {"ckpt_path", "config", "overwrite", "checkpoint.dirpath", "trainer.default_root_dir"}
# Settings in which the folds of one experiment may differ: where and how they run, and what training does not depend
# on.
MAY_DIFFER = RUN_SPECIFIC | {
    "output_dir",
    "data.fold",
    "data.root",
    "data.cache_dir",
    "data.num_workers",
    "data.cache_rate",
    "data.pairs_per_case",
    "wandb.mode",
    "wandb.project",
    "wandb.entity",
    "wandb.pictures",
    "tensorboard",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.enable_progress_bar",
    "model.init_args.mc_dropout",
    *(f"model.init_args.mc_dropout.{name}" for name in ("samples", "batch_size", "inference", "segmentations", "seed")),
    "model.init_args.largest_component",
    "model.init_args.temperature_scaling",
}


def flatten(tree: Any, prefix: str = "") -> Settings:
    """Flatten nested settings to dotted names."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: Settings = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
