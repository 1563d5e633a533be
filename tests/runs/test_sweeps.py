"""Sweep files: combinations are valid settings of fit, and have the same names in crossval and with an agent."""

import itertools

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from cm_lightning.cli import resolve_settings
from cm_lightning.commands.crossval import parse
from cm_lightning.crossval.grid import Grid
from cm_lightning.main import main
from cm_lightning.runs.sweeps import combination_name, read_combinations, sweep_experiment
from tests.conftest import CONFIGS


def command_lines(argv):
    """Return the command lines of fit in cross-validation."""
    arguments = parse(argv)
    grid = Grid(*(arguments[name] or [] for name in ("config", "grid", "overlay")))
    return grid.command_lines(arguments["fit_arguments"], arguments["seeds"])


SWEEPS = sorted(CONFIGS.glob("sweep_*.yaml"))


@pytest.fixture
def agent(tmp_path, monkeypatch):
    """Return a function that sets the environment variable and file of an agent of Weights & Biases."""

    def run(**parameters):
        file = tmp_path / "config-abc.yaml"
        items = {name: {"value": value} for name, value in parameters.items()}
        file.write_text("wandb_version: 1\n\n" + yaml.safe_dump(items, sort_keys=False))
        monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(file))

    return run


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_combinations_are_valid_settings_of_fit(path, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    sweep = yaml.safe_load(path.read_text())
    assert (sweep["name"], sweep["method"]) == (path.stem, "grid")
    assert sweep["metric"] == {"name": "best/val/dice/mean", "goal": "maximize"}
    assert sweep["parameters"]["data.fold"] == {"values": [0, 1, 2]}
    *command, args = sweep["command"]
    assert command[:5] == ["${env}", "python", "-m", "cm_lightning", "fit"]
    assert args == "${args}"
    # One fold is enough.
    values = {name: item["values"] for name, item in sweep["parameters"].items()} | {"data.fold": [2]}
    for product in itertools.product(*values.values()):
        combination = dict(zip(values, product, strict=True))
        args = {name: {"value": value} for name, value in combination.items()}
        flags = create_sweep_command_args({"args": args})["args"]
        settings = resolve_settings([*command[5:], *flags])
        assert {name: settings[name] for name in combination} == combination
    # The same grid in cross-validation.
    lines = command_lines([*command[5:], "--grid", str(path), "--data.n_folds=4"])
    combinations = read_combinations(path)
    assert len(lines) == len(combinations) == len({line[1] for line in lines})
    settings = resolve_settings(lines[-1])
    assert settings["experiment"] == path.stem + combination_name(combinations[-1])
    assert {name: settings[name] for name in combinations[-1]} == combinations[-1]


def test_names_and_command_lines(tmp_path):
    path = tmp_path / "maps.yaml"
    sweep = {
        "method": "grid",
        "parameters": {
            "solver.beta": {"values": [100.0, 400]},
            "solver.alpha": {"value": 0.2},
            "data.fold": {"values": [0, 1]},
            "seed_everything": {"values": [0, 1]},
            "model.network_options": {"value": {"channels": [4, 8]}},
            "model.temperature_scaling": {"value": True},
        },
    }
    path.write_text(yaml.safe_dump(sweep))
    lines = command_lines(["--grid", str(path), "--config", "a.yaml", "--data.root", "x"])
    assert len(lines) == 4
    # Parameters of the grid take precedence over all other arguments.
    assert lines[0] == [
        "--config=a.yaml",
        "--experiment=maps_network_optionschannels-4-8_temperature_scalingtrue_alpha0.2_beta100_seed0",
        *("--data.root", "x"),
        '--model.network_options={"channels": [4, 8]}',
        *("--model.temperature_scaling=true", "--seed_everything=0", "--solver.alpha=0.2", "--solver.beta=100.0"),
    ]
    with pytest.raises(ValueError, match=r"Both .*maps.yaml \(seed_everything\) and --seeds \[0, 1\] set the seed"):
        command_lines(["--config", "a.yaml", "--grid", str(path), "--seeds", "0", "1"])
    with pytest.raises(ValueError, match="contains no base configuration; expected --config BASE"):
        command_lines(["--grid", str(path)])


@pytest.mark.parametrize(
    "parameter",
    [
        {"min": 0.0, "max": 1.0},
        {"distribution": "categorical", "values": [1, 2]},
        {"values": []},
        {"values": "12"},
        {"parameters": {"alpha": {"value": 1}}},
        0.5,
    ],
)
def test_parameters_without_values_raise_errors(parameter, tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({"parameters": {"solver.alpha": parameter}}))
    with pytest.raises(ValueError, match=r"parameter solver.alpha in .*sweep.yaml must contain only the key"):
        main(["crossval", "--config", str(CONFIGS / "muscle_2ch.yaml"), "--grid", str(path)])


def test_other_configurations_are_not_sweeps(tmp_path):
    assert read_combinations(CONFIGS / "muscle_2ch.yaml") is None
    assert read_combinations(tmp_path / "missing.yaml") is None
    (tmp_path / "broken.yaml").write_text("a: [")
    assert read_combinations(tmp_path / "broken.yaml") is None


def test_runs_of_an_agent_have_separate_folders(agent, muscle_arguments, tmp_path):
    arguments = [
        *muscle_arguments,
        *("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--pictures.cases=0"),
        "--model.network_options={channels: [4, 8], strides: [2]}",
        "--data.confidence_mode=none",
        "--model.input_mode=1ch",
    ]
    for fold in (0, 1):
        # The order of parameters and the type of numbers must not matter.
        parameters = {"solver.beta": 100.0, "data.fold": fold, "solver.alpha": 0.2}
        agent(**parameters)
        main(["fit", *arguments, *(f"--{name}={value}" for name, value in parameters.items())])
    experiment = tmp_path / "outputs" / "muscle_2ch_alpha0.2_beta100"
    assert list(experiment.parent.iterdir()) == [experiment]
    assert {path.name for path in experiment.iterdir()} == {"fold0", "fold1"}
    assert yaml.safe_load((experiment / "fold1" / "config.yaml").read_text())["experiment"] == experiment.name
    # The name is the same in cross-validation.
    sweep = CONFIGS / "sweep_alpha_beta.yaml"
    lines = command_lines(["--config", "a.yaml", "--grid", str(sweep)])
    assert f"--experiment=sweep_alpha_beta{experiment.name.removeprefix('muscle_2ch')}" in lines[0]
    assert resolve_settings(arguments)["experiment"] == experiment.name
    # The suffix is not added again if a run is resumed from its stored configuration.
    assert sweep_experiment(experiment.name) == experiment.name
    assert sweep_experiment(f"{experiment.name}_seed1") == f"{experiment.name}_seed1"
    assert sweep_experiment("muscle_2ch_alpha0.2_beta1000") == "muscle_2ch_alpha0.2_beta1000_alpha0.2_beta100"


def test_invalid_files_of_an_agent_raise_errors(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_SWEEP_PARAM_PATH", raising=False)
    assert sweep_experiment("muscle_2ch") == "muscle_2ch"
    file = tmp_path / "parameters.yaml"
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(file))
    with pytest.raises(FileNotFoundError, match=r"parameters.yaml \(WANDB_SWEEP_PARAM_PATH\) does not exist"):
        sweep_experiment("muscle_2ch")
    file.write_text("wandb_version: 1\nsolver.alpha: 0.5\n")
    with pytest.raises(
        ValueError, match=r"must contain the parameters of the sweep agent with their values; found .*0\.5"
    ):
        sweep_experiment("muscle_2ch")
