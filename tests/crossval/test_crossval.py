"""Cross-validation: planning, interruption, resuming and pooling."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from cm_lightning.commands.crossval import parse
from cm_lightning.crossval.grid import Grid
from cm_lightning.crossval.jobs import Job
from cm_lightning.crossval.local import check_devices, run_jobs
from cm_lightning.errors import InputError
from cm_lightning.main import main
from cm_lightning.runs import ExperimentFolder
from tests.conftest import CONFIGS
from tests.test_main import metrics


@pytest.fixture
def arguments(muscle_arguments):
    """Two folds of the default configuration with a small network, without pictures."""
    small = ["--model.network_options={channels: [4, 8], strides: [2]}"]
    table = "--trainer.callbacks=[{class_path: cm_lightning.callbacks.ResultTable}]"
    no_pictures = [table, "--pictures.cases=0", "--uncertainty.cases=0"]
    return [*muscle_arguments, *small, *no_pictures, "--data.split=kfold", "--data.n_folds=2"]


@pytest.mark.slow
def test_interrupted_crossval_is_resumed(arguments, tmp_path, capsys):
    experiment = tmp_path / "outputs" / "muscle_2ch"
    argv = ["crossval", *arguments, "--trainer.max_epochs=80", "--devices", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cm_lightning", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # Like background processes of a shell script.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    last = experiment / "fold0" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 240
    while not last.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert last.is_file()
    time.sleep(1)
    process.send_signal(signal.SIGTERM)  # sent by a scheduler; Ctrl-C is handled alike
    output = process.communicate(timeout=120)[0].decode()
    assert process.returncode != 0, output
    assert not (experiment / "fold0" / "test_metrics.csv").exists()
    finished = len([row for row in metrics(experiment / "fold0") if row["train/loss"]])
    assert 0 < finished < 80

    main([*argv, "--folds", "0"])
    assert "fold0: resumes on cpu" in capsys.readouterr().out
    epochs = [int(row["epoch"]) for row in metrics(experiment / "fold0") if row["train/loss"]]
    # No epoch is run twice. Lightning logs an epoch after its checkpoint: a stop between the two loses its row.
    assert epochs == sorted(set(epochs))
    assert len(epochs) >= 79
    assert epochs[-1] == 79
    assert (experiment / "fold0" / "test_metrics.csv").is_file()
    assert not (experiment / "cv_metrics.csv").exists()  # written only for all folds


def test_folds_are_pooled_and_kept(arguments, tmp_path, capsys):
    experiment = tmp_path / "outputs" / "muscle_2ch_seed3"
    argv = ["crossval", *arguments, "--trainer.max_epochs=2", "--seeds", "3", "--model.largest_component=true"]
    # Fold 1 was trained separately and has not been tested.
    separate = ["--data.fold=1", "--seed_everything=3", "--experiment=muscle_2ch_seed3"]
    main(["fit", *arguments, "--trainer.max_epochs=2", *separate])
    main([*argv, "--devices", "cpu", "cpu"])
    output = capsys.readouterr().out
    assert "fold0: starts on cpu" in output
    assert "fold1: resumes on cpu" in output
    rows = pd.read_csv(experiment / "cv_metrics.csv")
    models = {"muscle_2ch", "muscle_2ch + largest component"}
    assert (set(rows["model"]), set(rows["seed"])) == (models, {3})
    assert "muscle_2ch + largest component: 2 folds" in " ".join(output.split())
    assert rows.groupby("fold")["patient"].nunique().sum() == rows["patient"].nunique() == 11
    summary = pd.read_csv(experiment / "cv_summary.csv")
    assert {"mean", "sd_patients", "sd_folds", "failures"} <= set(summary.columns)

    before = {path: path.stat().st_mtime_ns for path in experiment.glob("fold*/*")}
    main(argv)
    assert {path: path.stat().st_mtime_ns for path in experiment.glob("fold*/*")} == before
    with pytest.raises(
        ValueError, match=r"fold0 was run with other settings \(model.init_args.loss 'dice', now 'CE'\)"
    ):
        main([*argv, "--model.loss=CE"])
    with pytest.raises(ValueError, match=r"split kfold has the folds 0 to 1; found --folds \[2\]"):
        main([*argv, "--folds", "0", "2"])


def test_failed_folds_are_reported_and_the_others_run(tmp_path):
    jobs = [
        Job(["--nonsense"], ExperimentFolder(tmp_path / "a").fold(fold), fold, steps=[["fit"]]) for fold in range(2)
    ]
    with pytest.raises(ValueError, match=r"2 of 2 folds failed:\n.*fold0.log: .*nonsense.*\n.*fold1.log: "):
        run_jobs(jobs, ["cpu", "cpu"])


def test_command_line(capsys):
    arguments = parse(["--config", "a.yaml", "--config=b.yaml", "--folds", "0", "2", "--model.loss", "CE"])
    assert arguments["config"] == [Path("a.yaml"), Path("b.yaml")]
    assert arguments["folds"] == [0, 2]
    assert arguments["fit_arguments"] == ["--model.loss", "CE"]
    # Later options override earlier ones.
    argv = ["--config", "base.yaml", "--grid", "x/a.yaml", "x/b.yaml", "--config", "over.yaml", "--model.loss", "CE"]
    arguments = parse([*argv, "--overwrite"])
    assert arguments["overwrite"] is True
    grid = Grid(arguments["config"], arguments["grid"], arguments["overlay"])
    assert grid.command_lines(arguments["fit_arguments"])[1] == [
        *("--config=base.yaml", "--config=x/b.yaml", "--config=over.yaml", "--experiment=b"),
        *("--model.loss", "CE"),
    ]
    # A negative number is a value, not an option.
    arguments = parse(["--config=a.yaml", "--model.cross_entropy_weight", "-1", "--seeds", "-1", "2"])
    assert (arguments["seeds"], arguments["fit_arguments"]) == ([-1, 2], ["--model.cross_entropy_weight", "-1"])
    for argv, sentence in (
        (["--folds", "1"], "crossval needs a configuration; expected --config or --grid"),
        (["--config=a.yaml", "--split=stdy"], "split must be one of study, kfold, official; found 'stdy'. Did"),
        (["--config=a.yaml", "--folds", "one"], "folds must be a whole number; found 'one'"),
        (["--grid", "a.yaml", "--grid", "b.yaml"], "--grid was given twice"),
    ):
        with pytest.raises(SystemExit):
            main(["crossval", *argv])
        assert sentence in capsys.readouterr().err
    with pytest.raises(ValueError, match="Invalid settings of fit: There is no option --nonsense"):
        main(["crossval", f"--config={CONFIGS / 'muscle_2ch.yaml'}", "--nonsense=1"])


def test_a_missing_gpu_is_one_sentence(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    check_devices(["cpu", "0,1", "MIG-1"])
    with pytest.raises(InputError, match="--devices names 2, but this machine has the GPUs 0 to 1"):
        check_devices(["0,2"])
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(InputError, match="names 0, but this machine has no GPU"):
        check_devices(["0"])


def test_a_dry_run_describes_the_folds(arguments, tmp_path, capsys):
    main(["crossval", *arguments, "--seeds", "3", "--dry_run", "true"])
    printed = capsys.readouterr().out
    assert "muscle_2ch_seed3/fold1: seed 3, waiting; fit, test; folder " in printed
    assert "--experiment=muscle_2ch_seed3 --folds=1" in printed
    assert "2 folds would be run." in printed
    assert not (tmp_path / "outputs" / "muscle_2ch_seed3").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--engine", "ray", "--devices", "cpu"], "--devices is an option of --engine local; the engine is ray"),
        (["--parallel", "2"], "--parallel is an option of --engine ray and slurm; the engine is local"),
        (["--ray_address", "auto"], "--ray_address is an option of --engine ray; the engine is local"),
        (
            ["--engine=ray", "--slurm_options", "a=b"],
            "--slurm_options is an option of --engine slurm; the engine is ray",
        ),
        (["--print_slurm=true", "--devices", "0"], "--devices is an option of --engine local; the engine is slurm"),
    ],
)
def test_options_of_other_engines_are_refused(options, sentence, capsys):
    with pytest.raises(SystemExit):
        main(["crossval", "--config=a.yaml", *options])
    assert sentence in capsys.readouterr().err
