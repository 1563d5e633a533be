"""``train_region``: train the network that finds the insonified region."""

from collections.abc import Sequence
from pathlib import Path

from cm_lightning.parsing import run_function


def train_region(
    textures: list[Path],
    *,
    output: Path,
    exclude: str | None = None,
    steps: int = 4700,
    batch_size: int = 32,
    seed: int = 0,
    initial: Path | None = None,
    logs: Path = Path("outputs/region"),
) -> None:
    """Train the network that finds the insonified region of screens, on synthetic screens.

    The screens show simulated speckle and the central parts of real images, in random shapes of insonified regions and
    among random text, rulers and panels. On two cores, the default number of steps takes about an hour.

    Args:
        textures: Folders of ultrasound images whose central parts show tissue.
        output: File of the weights. The package uses cm_lightning/confidence/domain/region_network.pt.
        exclude: Regular expression for names of files that are left out, such as screens that are used for tests.
        steps: Number of training steps.
        batch_size: Number of screens per step.
        seed: Seed of the screens and of the weights.
        initial: File of weights with which the training starts, to continue an earlier training run on new screens;
            random weights by default.
        logs: Folder of the logged training metrics.
    """
    from cm_lightning.tasks.region import train_region_network

    train_region_network(textures, output, exclude, steps, batch_size, seed, logs, initial)


def run(argv: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        argv: Command line after ``train_region``.
    """
    run_function("train_region", train_region, argv)
