"""``crossval``: run all folds of configurations, and evaluate them together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cm_lightning.crossval.grid import Grid
from cm_lightning.errors import UsageError
from cm_lightning.parsing import make_parser


def crossval(
    config: list[Path] | None = None,
    grid: list[Path] | None = None,
    overlay: list[Path] | None = None,
    seeds: list[int] | None = None,
    split: Literal["study", "kfold", "official"] | None = None,
    folds: list[int] | None = None,
    devices: list[str] | None = None,
    overwrite: bool = False,
    fit_arguments: Sequence[str] = (),
) -> None:
    """Run the folds of a configuration, one process each, and evaluate them together.

    Everything else on the command line goes to fit and test. Run it again after an interruption: finished folds are
    kept, the others go on from their last epoch.

    Args:
        config: Configurations, as for fit; may be repeated. As there, what comes later on the command line overrides:
            --config BASE --grid OVERLAY OVERLAY, or --grid FULL FULL --config OVERLAY.
        grid: Several configurations, each run with all folds and named after its file. A sweep file of Weights & Biases
            stands for all combinations of its parameters but the fold, which are given to fit last: --config BASE
            --grid SWEEP.
        overlay: The same as a --config after --grid.
        seeds: Train everything with each of these seeds, as experiments EXPERIMENT_seed0, ...; the report averages over
            them. The folds are the same (data.split_seed).
        split: As data.split.
        folds: Only these folds; then there is no pooled evaluation.
        devices: GPUs to use, a fold on each: 0 1; several for one fold: 0,1 2,3. cpu, or cpu cpu for two folds at a
            time. By default every visible GPU, or the CPU.
        overwrite: Run all folds anew.
        fit_arguments: Arguments of fit and test, which all folds share.
    """
    configurations = Grid(config or [], grid or [], overlay or [])
    if configurations == Grid([]):
        raise UsageError("crossval needs a configuration; expected --config or --grid.")
    arguments = [*fit_arguments, *([f"--data.split={split}"] if split else [])]

    from cm_lightning.crossval.command import crossval

    crossval(configurations, arguments, seeds, folds, devices, overwrite)


def parse(argv: Sequence[str]) -> dict[str, Any]:
    """Take crossval's own arguments from a command line.

    Args:
        argv: Command line after ``crossval``.

    Returns:
        Arguments of :func:`crossval`; all options that are not its own are those of ``fit``.

    Raises:
        UsageError: A value is not one that an option takes, or --grid was given twice.
    """
    parser = make_parser("crossval", crossval, skip=["fit_arguments"])
    options = {option for action in parser._actions for option in action.option_strings}
    own: list[str] = []
    fit_arguments: list[str] = []
    configs: dict[str, list[str]] = {"--config": [], "--overlay": []}
    target, key = fit_arguments, "--config"
    for word in argv:
        name, equals, value = word.partition("=")
        if name == "--config":
            target = configs[key]
            target += [value] if equals else []
            continue
        if name == "--grid":
            if key == "--overlay":
                raise UsageError("--grid was given twice; expected it once, with all its files.")
            key = "--overlay"
        if word.startswith("--") or name in options:  # not a negative number
            target = own if name in options else fit_arguments
        target.append(word)
    for name, paths in configs.items():
        own += [name, *paths] if paths else []
    return {**parser.parse_args(own).as_dict(), "fit_arguments": fit_arguments}


def run(argv: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        argv: Command line after ``crossval``.
    """
    crossval(**parse(argv))
