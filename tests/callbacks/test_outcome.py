"""The last lines of a subcommand, whose commands work as they are printed."""

import shlex

import pytest

from cm_lightning.callbacks.outcome import without
from cm_lightning.main import main


def test_options_are_removed_with_their_values():
    argv = ["--config", "a.yaml", "--ckpt_path", "last", "--overwrite=true", "--ensemble", "a", "b", "--data.fold=1"]
    assert without(argv, "--ckpt_path", "--overwrite") == [
        *("--config", "a.yaml", "--ensemble", "a", "b", "--data.fold=1")
    ]
    assert without(argv, "--ensemble", "--ckpt_path", "--overwrite") == ["--config", "a.yaml", "--data.fold=1"]


def next_command(output):
    (line,) = (line for line in output.splitlines() if line.startswith("Next: "))
    program, *argv = shlex.split(line.removeprefix("Next: python -m "))
    assert program == "cm_lightning"
    return argv


@pytest.mark.usefixtures("no_pictures")
def test_every_subcommand_ends_with_its_folder_and_the_next_command(muscle_arguments, run_folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    main(["fit", *muscle_arguments, "--trainer.max_epochs=1", "--overwrite=true"])
    output = capsys.readouterr().out
    assert f"The run is in {run_folder}." in output
    assert "Best validation Dice 0." in output
    command = next_command(output)
    assert command[0] == "test"
    main(command)
    output = capsys.readouterr().out
    for name in ("soleus", "gastrocnemius_medialis", "gastrocnemius_lateralis"):
        assert f" {name} " in output  # tables do not break names
    assert max(len(line) for line in output.splitlines() if line.startswith(("│", "┃"))) <= 60
    assert f"All results are in {run_folder}; test_cases.csv lists the worst cases first." in output
    command = next_command(output)
    assert command[0] == "predict"
    assert command[-2:] == ["--data.predict_path", "IMAGES"]
    main([*command[:-2], "--prediction.maps=false"])
    assert f"The predictions are in {run_folder / 'predictions'}." in capsys.readouterr().out
