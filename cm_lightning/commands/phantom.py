"""``phantom``: write a synthetic ultrasound data set with known ground truth."""

from collections.abc import Sequence
from pathlib import Path

from cm_lightning.parsing import CommandParser


def run(argv: Sequence[str]) -> None:
    """Write a phantom data set.

    Args:
        argv: Command line after ``phantom``: the folder, and options that are the arguments of
            :class:`cm_lightning.data.phantom.Phantom`.
    """
    from cm_lightning.data.phantom import Phantom

    parser = CommandParser(
        prog="cm_lightning phantom", description="Write a synthetic ultrasound data set with known ground truth."
    )
    parser.add_argument("--config", action="config", help="YAML file with values of the options below.")
    parser.add_argument("root", type=Path, help="Folder to write to.")
    parser.add_class_arguments(Phantom)
    arguments = parser.parse_args(list(argv))
    root = arguments.pop("root")
    arguments.pop("config")
    phantom = Phantom(**parser.instantiate_classes(arguments).as_dict())
    phantom.write(root)
    print(f"{root} contains {phantom.patients} {phantom.variant} phantoms.")
    if phantom.raters is not None:
        labels = phantom.raters.raters * phantom.raters.repeats
        print(f"Wrote {labels} simulated rater labels per image to {root / phantom.raters.folder}.")
