"""``crossval``: run all folds of configurations, and evaluate them together."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cm_lightning.crossval.grid import Grid


class GridAction(argparse.Action):
    """Keep the grid's files, and how many of the other configurations came before them."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Take the grid."""
        if namespace.grid:
            parser.error("expected --grid once, with all its files")
        namespace.grid = values
        namespace.configs_before_grid = len(namespace.config)


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, Grid, list[str]]:
    """Take crossval's own arguments from a command line.

    Args:
        argv: Command line after ``crossval``.

    Returns:
        Its own arguments, the configurations among them, and all other arguments, which are those of ``fit``.
    """
    parser = argparse.ArgumentParser(
        prog="cm_lightning crossval",
        description="Run the folds of a configuration, one process each, and evaluate them together. Everything else "
        "on the command line goes to fit and test. Run it again after an interruption: finished folds are kept, the "
        "others go on from their last epoch.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="append", default=[], type=Path, help="As for fit; may be repeated.")
    parser.add_argument(
        "--grid",
        nargs="+",
        action=GridAction,
        default=[],
        type=Path,
        help="Several configurations, each with all folds and named after its file. As with --config, what comes later "
        "on the command line overrides: --config BASE --grid OVERLAY OVERLAY, or --grid FULL FULL --config OVERLAY. "
        "A sweep file of Weights & Biases stands for all combinations of its parameters but the fold, which are given "
        "to fit last: --config BASE --grid SWEEP.",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        help="Train everything with each of these seeds, as experiments EXPERIMENT_seed0, ...; the report averages "
        "over them. The folds are the same (data.split_seed).",
    )
    parser.add_argument("--split", choices=["study", "kfold", "official"], help="As data.split.")
    parser.add_argument("--folds", nargs="+", type=int, help="Only these folds; then there is no pooled evaluation.")
    parser.add_argument(
        "--devices",
        nargs="+",
        help="GPUs to use, a fold on each: 0 1; several for one fold: 0,1 2,3. cpu, or cpu cpu for two folds at a "
        "time. By default every visible GPU, or the CPU.",
    )
    parser.add_argument("--overwrite", action="store_true", help="Run all folds anew.")
    own, rest = parser.parse_known_args(list(argv))
    if not (own.config or own.grid):
        parser.error("expected --config or --grid")
    split = own.configs_before_grid if own.grid else len(own.config)
    grid = Grid(own.config[:split], own.grid, own.config[split:])
    return own, grid, [*rest, f"--data.split={own.split}"] if own.split else rest


def run(argv: Sequence[str]) -> None:
    """Run a cross-validation, or several.

    Args:
        argv: Command line after ``crossval``.

    Raises:
        InputError: As :func:`cm_lightning.crossval.command.crossval`.
    """
    own, grid, rest = parse(argv)

    from cm_lightning.crossval.command import crossval

    crossval(grid, rest, own.seeds, own.folds, own.devices, own.overwrite)
