"""``export``: write a trained network as an ONNX file or as a program of torch.export."""

from collections.abc import Sequence
from pathlib import Path

from cm_lightning.parsing import run_function


def export(checkpoint: Path, *, output: Path, image: Path | None = None) -> None:
    """Write a trained network as an ONNX file or as a program of torch.export, for use without this package.

    The exported network is compared with the checkpoint on a real image; probabilities may differ by 1e-4. A JSON file
    beside it states classes, grid, normalisation, and how the confidence map enters.

    Args:
        checkpoint: Checkpoint that fit wrote.
        output: File with the suffix .onnx or .pt2.
        image: Image with which the networks are compared; by default the first one of the data set of the run.
    """
    from cm_lightning.inference.export import export_network

    difference = export_network(checkpoint, output, image)
    print(f"Wrote {output} and {output.with_suffix('.json')}; probabilities differ by at most {difference:.1e}.")


def run(argv: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        argv: Command line after ``export``.
    """
    run_function("export", export, argv)
