"""``phantom``: write a synthetic ultrasound data set whose truth is known."""

from collections.abc import Sequence
from pathlib import Path


def run(argv: Sequence[str]) -> None:
    """Write a phantom data set.

    Args:
        argv: Command line after ``phantom``.
    """
    from jsonargparse import ArgumentParser

    from cm_lightning.data.phantom import Phantom

    parser = ArgumentParser(prog="cm_lightning phantom", description="Write a synthetic ultrasound data set.")
    parser.add_argument("root", type=Path, help="Folder to write to.")
    parser.add_class_arguments(Phantom)
    config = parser.parse_args(list(argv))
    root = config.pop("root")
    phantom = Phantom(**parser.instantiate_classes(config).as_dict())
    phantom.write(root)
    print(f"Wrote {phantom.patients} {phantom.variant} phantoms to {root}.")
    if phantom.raters is not None:
        labels = phantom.raters.raters * phantom.raters.repeats
        print(f"Each has {labels} labels of raters in {root / phantom.raters.folder}.")
