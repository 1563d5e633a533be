"""Shared fixtures: small phantoms, small configurations, trained runs, and real data if it is available.

The fixtures import the data and the commands where they use them, since tests of the solver also run where MONAI and
the libraries for files and configurations are not installed, such as on a machine that is only there for its GPU.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

CONFIGS = Path(__file__).parents[1] / "configs"
REAL_DATA = Path(__file__).parents[2] / "shared" / "data"

# Only the tests of W&B enable it, and always without a login.
os.environ["WANDB_MODE"] = "disabled"
os.environ.pop("WANDB_API_KEY", None)
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a seeded random generator."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real ultrasound data, or skip the test if it does not exist."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"real ultrasound data was not found at {REAL_DATA}")
    return REAL_DATA


@pytest.fixture(scope="session")
def muscle_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return eleven small muscle phantoms in the layout of LEG-3D-US, the minimum for the split of the study."""
    from cm_lightning.data import Phantom

    root = tmp_path_factory.mktemp("muscle")
    Phantom("muscle", patients=11, size=(16, 24, 16), spacing=(3.0, 2.4, 6.0)).write(root)
    return root


@pytest.fixture(scope="session")
def thyroid_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return three small thyroid phantoms in the layout of SegThy."""
    from cm_lightning.data import Phantom

    root = tmp_path_factory.mktemp("thyroid")
    Phantom("thyroid", patients=3, size=(16, 24, 16), spacing=(3.0, 2.4, 6.0)).write(root)
    return root


def arguments_in(folder: Path, muscle_set: Path) -> list[str]:
    """Return the default configuration for the small phantoms, with all output in one folder."""
    return [
        "--config",
        str(CONFIGS / "muscle_2ch.yaml"),
        f"--data.root={muscle_set}",
        "--data.spatial_size=[16,16,16]",
        "--data.num_workers=0",
        f"--data.cache_dir={folder / 'cache'}",
        f"--output_dir={folder / 'outputs'}",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=2",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    ]


@pytest.fixture
def muscle_arguments(muscle_set: Path, tmp_path: Path) -> list[str]:
    """Return the default configuration for the small phantoms, with output in a temporary folder."""
    return arguments_in(tmp_path, muscle_set)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable drawing of pictures, which takes longer than a small run."""
    for module in ("augmentation_picture", "segmentation_pictures", "uncertainty_pictures", "worst_case_pictures"):
        for name in ("draw_panels", "save_figure"):
            monkeypatch.setattr(f"cm_lightning.callbacks.{module}.{name}", lambda *_: None)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Return the folder of fold 0 of a run with :func:`muscle_arguments`."""
    return tmp_path / "outputs" / "muscle_2ch" / "fold0"


@contextmanager
def blank_figures() -> Iterator[None]:
    """Write empty files instead of figures, because drawing takes most of the time of a report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda _, path, **__: Path(path).touch())
        yield


@pytest.fixture(scope="session")
def trained_once(muscle_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output folder of a trained run with its pictures. Tests must not change it."""
    from cm_lightning.main import main

    folder = tmp_path_factory.mktemp("trained")
    main(["fit", *arguments_in(folder, muscle_set)])
    return folder / "outputs"


@pytest.fixture
def trained(muscle_arguments: list[str], trained_once: Path, tmp_path: Path) -> list[str]:
    """Return the arguments of a trained run. Its output folder is a copy, which tests may change."""
    shutil.copytree(trained_once, tmp_path / "outputs")
    return muscle_arguments
