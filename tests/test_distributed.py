"""Training in several processes equals that in one process with a batch as large as theirs together."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_main import timeless
from tests.test_resume import different_rows

EXACT = [
    *(f"--data.augmentation.{name}=0" for name in ("gain", "time_gain", "speckle", "rotation", "scaling", "elastic")),
    "--model.network_options={channels: [4, 8], strides: [2], dropout: 0, norm: instance}",
    *("--trainer.max_epochs=2", "--wandb.mode=disabled", "--pictures.cases=0", "--uncertainty.cases=0"),
]


@pytest.mark.slow
def test_two_processes_train_as_one_with_a_batch_of_twice_the_size(muscle_arguments, run_folder):
    def fit(name, *options):
        command = [sys.executable, "-m", "cm_lightning", "fit", *muscle_arguments, *EXACT, f"--experiment={name}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        root = Path(__file__).parents[1]
        subprocess.run([*command, *options], check=True, timeout=300, env=environment, cwd=root, capture_output=True)
        return timeless(run_folder.parents[1] / name / "fold0")

    one = fit("one", "--data.batch_size=4")
    two = fit("two", "--data.batch_size=2", "--trainer.devices=2", "--trainer.strategy=ddp")
    assert len(one) == 4
    assert different_rows(one, two) == []
