"""Choice between the engines, and their independence."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cm_lightning.confidence
from cm_lightning.confidence import ConfidenceMapSolver, cpu
from cm_lightning.confidence.engine import choose_engine
from cm_lightning.confidence.problem import Problem

PACKAGE = Path(cm_lightning.confidence.__file__).parent


def test_frames_on_the_host_use_the_cpu_engine(rng):
    frames = rng.random((2, 6, 5))
    for given in (frames, torch.from_numpy(frames)):
        assert choose_engine(Problem(ConfidenceMapSolver(), given, None, None, None)) is cpu


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("cpu", ("cuda", "solver ", "gradient", "engine")),
        ("cuda", ("cpu", "solver ", "gradient", "engine")),
    ],
)
def test_engines_do_not_import_each_other(folder, forbidden):
    for file in (PACKAGE / folder).glob("*.py"):
        imports = [line for line in file.read_text().splitlines() if line.startswith(("from ", "import "))]
        for name in forbidden:
            assert not any(f"cm_lightning.confidence.{name}" in line for line in imports), (file.name, name)


def test_cuda_is_only_imported_if_it_is_used():
    code = "import sys, cm_lightning.confidence; sys.exit('cm_lightning.confidence.cuda' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
