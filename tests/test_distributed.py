"""Training in several processes equals that in one process with a batch as large as theirs together."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
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


@pytest.mark.slow
def test_two_processes_test_as_one(muscle_arguments, run_folder):
    def run(command, *options):
        arguments = [*muscle_arguments, *EXACT, "--uncertainty.cases=0", "--trainer.max_epochs=1", *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        root = Path(__file__).parents[1]
        program = [sys.executable, "-m", "cm_lightning", command, *arguments]
        subprocess.run(program, check=True, timeout=300, env=environment, cwd=root, capture_output=True)

    def results():
        table = pd.read_csv(run_folder / "test_metrics.csv").set_index(["case", "class", "metric", "postprocessing"])
        return table["value"].sort_index(), {path.name for path in (run_folder / "pictures").glob("test*.png")}

    run("fit")
    run("test", "--ckpt_path=last")
    values, pictures = results()
    assert len(pictures) == 3
    shutil.rmtree(run_folder / "pictures")
    run("test", "--ckpt_path=last", "--trainer.devices=2", "--trainer.strategy=ddp")
    both, pictures_of_both = results()
    pd.testing.assert_series_equal(values, both, rtol=1e-5)
    assert pictures_of_both == pictures
