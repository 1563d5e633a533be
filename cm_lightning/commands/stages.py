"""Lightning's subcommands, as far as a command line can be checked without importing Lightning."""

from collections.abc import Sequence
from difflib import get_close_matches

from cm_lightning.errors import UsageError

STAGES = {
    "fit": "train a network, or go on with a training",
    "validate": "measure a network on the validation cases",
    "test": "measure a network on the test cases, at the resolution of their files",
    "predict": "write the predictions of a network as image files",
}

# First words of the options of these subcommands; what follows the first dot is the parser's to check.
OPTIONS = (
    *("help", "config", "print_config", "seed_everything", "trainer", "model", "data", "ckpt_path", "verbose"),
    *("return_predictions", "weights_only", "experiment", "output_dir", "overwrite", "wandb", "tensorboard"),
    *("checkpoint", "pictures", "uncertainty", "prediction", "solver"),
)


def check_options(argv: Sequence[str]) -> None:
    """Refuse an option that no stage has: Lightning takes seconds to say so.

    Args:
        argv: Command line, with the subcommand.

    Raises:
        UsageError: There is no such option; the message names the nearest one.
    """
    for argument in argv:
        if not argument.startswith("--") or argument == "--":
            continue
        first, dot, rest = argument.removeprefix("--").partition("=")[0].partition(".")
        first = first.removesuffix("+")
        if any(option.startswith(first) for option in OPTIONS):
            continue
        nearest = get_close_matches(first, OPTIONS, n=1)
        hint = f"did you mean --{nearest[0]}{dot}{rest}? " if nearest else ""
        raise UsageError(f"There is no option --{first}{dot}{rest}; {hint}`fit --help` lists all options.")
