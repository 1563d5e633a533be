"""The choice between the engines, and that nothing couples them."""

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


def test_frames_on_the_host_are_the_cpus(rng):
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
def test_engines_import_neither_each_other_nor_what_chooses_them(folder, forbidden):
    for file in (PACKAGE / folder).glob("*.py"):
        imports = [line for line in file.read_text().splitlines() if line.startswith(("from ", "import "))]
        for name in forbidden:
            assert not any(f"cm_lightning.confidence.{name}" in line for line in imports), (file.name, name)


def test_cuda_is_imported_only_where_it_is_used():
    code = "import sys, cm_lightning.confidence; sys.exit('cm_lightning.confidence.cuda' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
