"""The subcommands of Lightning, and a check of their options that does not need to import Lightning."""

from collections.abc import Sequence

from cm_lightning.errors import UsageError, suggestion

STAGES = {
    "fit": "train a network, or resume an interrupted run",
    "validate": "evaluate a network on the validation cases",
    "test": "evaluate a network on the test cases, at the resolution of the image files",
    "predict": "write the predictions of a network as image files",
}

# Option names of these subcommands up to the first dot; the rest is checked by the parser.
OPTIONS = (
    *("help", "config", "print_config", "seed_everything", "trainer", "model", "data", "ckpt_path", "verbose"),
    *("return_predictions", "weights_only", "experiment", "output_dir", "overwrite", "wandb", "tensorboard"),
    *("checkpoint", "pictures", "uncertainty", "prediction", "solver", "ensemble", "plan"),
)


def check_options(argv: Sequence[str]) -> None:
    """Check that every option exists, without the seconds that importing Lightning takes.

    Args:
        argv: Command line, including the subcommand.

    Raises:
        UsageError: An option does not exist; the message suggests the closest valid one.
    """
    for argument in argv:
        if not argument.startswith("--") or argument == "--":
            continue
        group, dot, setting = argument.removeprefix("--").partition("=")[0].partition(".")
        group = group.removesuffix("+")
        if any(option.startswith(group) for option in OPTIONS):
            continue
        known = {option: f"--{option}{dot}{setting}" for option in OPTIONS}
        hint = suggestion(group, known, known.__getitem__)
        raise UsageError(f"There is no option --{group}{dot}{setting}.{hint} `fit --help` lists all options.")
