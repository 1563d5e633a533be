"""Job arrays of SLURM, whose tasks are run by hand."""

import os
import subprocess
import sys

import pandas as pd
import pytest

from cm_lightning.crossval.jobs import Job
from cm_lightning.crossval.resources import FoldResources
from cm_lightning.crossval.slurm import array_script, submit
from cm_lightning.errors import InputError
from cm_lightning.main import main
from cm_lightning.runs import ExperimentFolder


@pytest.fixture
def recorder(tmp_path, monkeypatch):
    """Replace Python by a program that prints its arguments."""
    program = tmp_path / "py thon"
    program.write_text('#!/bin/bash\nprintf "%s\\n" "$@" "threads $OMP_NUM_THREADS" "tasks ${SLURM_NTASKS:-none}"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


@pytest.fixture
def jobs(tmp_path):
    experiment = ExperimentFolder(tmp_path / "outputs" / "leg")
    return [Job(["--config=a b.yaml", "--model.loss=CE"], experiment.fold(index), index) for index in range(3)]


def run_task(path, number, **environment):
    return subprocess.run(
        ["bash", str(path)],
        env={**os.environ, "SLURM_ARRAY_TASK_ID": str(number), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.usefixtures("recorder")
def test_every_task_runs_its_fold(jobs, tmp_path):
    script = array_script(jobs, FoldResources(gpus=2, cpus=8, parallel=2), ["--partition=gpu"])
    for directive in ("--array=0-2%2", "--gpus=2", "--cpus-per-task=8", "--requeue", "--partition=gpu"):
        assert f"#SBATCH {directive}\n" in script
    path = tmp_path / "job.sh"
    path.write_text(script)
    arguments = ["-m", "cm_lightning", "crossval", "--config=a b.yaml", "--model.loss=CE"]
    for number in range(3):
        result = run_task(path, number, CUDA_VISIBLE_DEVICES="4,5", SLURM_NTASKS="1", SLURM_CPUS_PER_TASK="6")
        expected = [*arguments, f"--folds={number}", "--devices", "4,5", "threads 6", "tasks none"]
        assert result.stdout.splitlines() == expected
    assert run_task(path, 3, CUDA_VISIBLE_DEVICES="0").returncode == 2
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    without = subprocess.run(
        ["bash", path], env=environment | {"SLURM_ARRAY_TASK_ID": "0"}, capture_output=True, text=True, check=False
    )
    assert without.returncode != 0
    assert "no GPU was assigned to this task" in without.stderr


@pytest.mark.usefixtures("recorder")
def test_tasks_without_gpus_use_the_cpu(jobs, tmp_path):
    path = tmp_path / "job.sh"
    path.write_text(array_script(jobs, FoldResources(gpus=0)))
    assert "--gpus" not in path.read_text()
    assert run_task(path, 0).stdout.splitlines()[-3:] == ["cpu", "threads 4", "tasks none"]


def test_jobs_are_submitted_with_one_that_pools(jobs, tmp_path, monkeypatch, capsys):
    commands = tmp_path / "bin"
    commands.mkdir()
    sbatch, log = commands / "sbatch", tmp_path / "submitted"
    sbatch.write_text(f'#!/bin/bash\nprintf "%s|" "$@" >> {log}; echo >> {log}; echo "17;cluster"\n')
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    folder = jobs[0].fold.path.parent
    submit(array_script(jobs, FoldResources()), folder, [jobs[0].argv])
    array, pool = log.read_text().splitlines()
    assert array == f"--parsable|{folder}/crossval_slurm.sh|"
    assert "|--dependency=afterok:17|" in pool
    assert "crossval '--config=a b.yaml' --model.loss=CE --devices cpu|" in pool
    assert "job array 17" in capsys.readouterr().out
    sbatch.write_text("#!/bin/bash\necho 'invalid partition' >&2; exit 1\n")
    with pytest.raises(InputError, match="sbatch refused the job: invalid partition"):
        submit(array_script(jobs, FoldResources()), folder, [])
    sbatch.unlink()
    with pytest.raises(InputError, match="needs the command sbatch"):
        submit(array_script(jobs, FoldResources()), folder, [])


def test_invalid_resources_are_refused():
    for resources, option in (
        ({"gpus": -1}, "gpus_per_fold"),
        ({"cpus": 0}, "cpus_per"),
        ({"parallel": 0}, "parallel"),
    ):
        with pytest.raises(InputError, match=f"--{option}.* must be at least"):
            FoldResources(**resources)


@pytest.mark.slow
def test_tasks_that_are_run_by_hand_equal_a_local_run(muscle_arguments, tmp_path, capsys):
    common = [*muscle_arguments, "--data.split=kfold", "--data.n_folds=2", "--trainer.max_epochs=1"]
    common += ["--pictures.cases=0", "--uncertainty.cases=0", "--wandb.mode=disabled", "--trainer.deterministic=true"]
    array = ["crossval", *common, "--experiment=array"]
    main([*array, "--print_slurm=true", "--gpus_per_fold=0"])
    script = tmp_path / "job.sh"
    script.write_text(capsys.readouterr().out)
    for number in range(2):
        result = run_task(script, number)
        assert result.returncode == 0, result.stderr
    main([*array, "--devices", "cpu"])
    main(["crossval", *common, "--experiment=local", "--devices", "cpu"])
    keys = ["case", "class", "metric", "fold"]
    tables = [pd.read_csv(tmp_path / "outputs" / name / "cv_metrics.csv") for name in ("array", "local")]
    first, second = (table.set_index(keys)["value"].sort_index() for table in tables)
    pd.testing.assert_series_equal(first, second, rtol=1e-5)
