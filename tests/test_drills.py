"""Drills: runs are killed in different ways, and lose nothing."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from cm_lightning.main import main
from tests.test_main import metrics, timeless
from tests.test_resume import SMALL, different_rows, read_last

pytestmark = pytest.mark.drill


def accept_signals():
    """Undo what a shell sets for processes in the background."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(*argv):
    return subprocess.Popen(
        [sys.executable, "-m", "cm_lightning", *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        preexec_fn=accept_signals,
    )


def wait_for(path, process):
    """Wait until a process has written a file, and goes on."""
    started, deadline = time.time(), time.monotonic() + 240

    def is_written():
        return path.is_file() and path.stat().st_mtime > started

    while not is_written() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert is_written()
    time.sleep(1)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
)
def test_a_run_that_was_killed_twice_keeps_all_rows(muscle_arguments, run_folder, number, status):
    arguments = [*muscle_arguments, "--pictures.cases=0", "--uncertainty.cases=0", "--data.num_workers=2"]
    last = run_folder / "checkpoints" / "last.ckpt"
    for _ in range(2):
        process = start("fit", *arguments, "--trainer.max_epochs=400", "--ckpt_path=auto")
        wait_for(last, process)
        process.send_signal(number)
        error = process.communicate(timeout=60)[1]
        assert process.returncode == status
        assert "Traceback" not in error
        if number != signal.SIGKILL:
            assert f"{last} is kept; the same command with --ckpt_path auto continues from it." in error
        assert not (run_folder / "finished.json").exists()
    finished = len([row for row in metrics(run_folder) if row["train/loss"]])
    main(["fit", *muscle_arguments, f"--trainer.max_epochs={finished + 2}", "--ckpt_path=auto"])
    assert [int(row["epoch"]) for row in metrics(run_folder) if row["train/loss"]] == list(range(finished + 2))
    assert (run_folder / "finished.json").is_file()


def test_a_disk_without_space_costs_only_the_file_that_is_written(muscle_arguments, run_folder):
    """The limit of the size of files has the effect of a full disk, and needs no disk of its own."""
    arguments = [*muscle_arguments, "--pictures.cases=0", "--uncertainty.cases=0", "--wandb.mode=disabled"]
    main(["fit", *arguments, "--trainer.max_epochs=1"])
    last = run_folder / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) // 2},) * 2)"
    code = f"{limit}; from cm_lightning.main import main; main()"
    command = [sys.executable, "-c", code, "fit", *arguments, "--trainer.max_epochs=3", "--ckpt_path=auto"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    assert "checkpoint" in process.stderr.splitlines()[-1]
    assert "Earlier checkpoints are complete" in process.stderr.splitlines()[-1]
    assert last.read_bytes() == before
    assert not [path for path in run_folder.rglob("*") if path.name.startswith(".partial")]
    assert [path for path in run_folder.rglob("*") if path.is_file() and path.stat().st_size == 0] == []
    main(["fit", *arguments, "--trainer.max_epochs=3", "--ckpt_path=auto"])
    assert [int(row["epoch"]) for row in metrics(run_folder) if row["train/loss"]] == [0, 1, 2]


def test_two_processes_continue_from_any_step(muscle_arguments, run_folder, tmp_path):
    callbacks = tmp_path / "callbacks.yaml"
    callbacks.write_text("trainer: {callbacks: [{class_path: tests.test_resume.EveryStep}]}")
    options = ["--trainer.devices=2", "--trainer.strategy=ddp", f"--config={callbacks}", "--wandb.mode=disabled"]
    arguments = [*muscle_arguments, *SMALL, "--data.batch_size=1", *options]

    def fit(*more):
        process = start("fit", *arguments, *more)
        error = process.communicate(timeout=240)[1]
        assert process.returncode == 0, error

    fit()
    expected, rows = read_last(run_folder)["state_dict"], timeless(run_folder)
    original = shutil.copytree(run_folder, run_folder.with_name("original"))
    for step in ("step01", "step03", "step06"):
        shutil.rmtree(run_folder)
        shutil.copytree(original, run_folder)
        fit(f"--ckpt_path={run_folder / 'saved' / step}.ckpt")
        resumed = read_last(run_folder)["state_dict"]
        assert all(torch.allclose(resumed[name], value, atol=1e-6) for name, value in expected.items())
        assert different_rows(rows, timeless(run_folder)) == []


def test_a_second_fit_in_the_same_folder_is_refused(muscle_arguments, run_folder):
    first = start("fit", *muscle_arguments, "--trainer.max_epochs=400")
    wait_for(run_folder / "checkpoints" / "last.ckpt", first)
    second = start("fit", *muscle_arguments, "--overwrite=true")
    error = second.communicate(timeout=60)[1]
    assert second.returncode == 2
    assert "is training in" in error
    assert first.poll() is None
    first.kill()
    first.communicate()


def test_folds_end_with_a_crossval_that_was_killed(muscle_arguments, run_folder):
    arguments = [*muscle_arguments, "--data.split=kfold", "--trainer.max_epochs=400"]
    process = start("crossval", *arguments, "--devices", "cpu", "--folds", "0")
    wait_for(run_folder / "checkpoints" / "last.ckpt", process)
    process.kill()
    process.communicate()
    time.sleep(5)
    written = (run_folder / "checkpoints" / "last.ckpt").stat().st_mtime
    assert written < time.time() - 2
