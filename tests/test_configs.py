"""Every configuration through fit, test and predict, and a training of each architecture in two processes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from cm_lightning.data import Phantom
from cm_lightning.errors import InputError
from cm_lightning.io import read_image
from cm_lightning.main import main
from tests.conftest import CONFIGS

OVERLAYS = {"demo", "demo_thyroid"}
# For any data set; see test_strong_configurations_plan_their_sizes.
STRONG = {"strong_2d", "strong_3d"}
# Sweep files are not configurations: see test_sweeps.py.
ALL = sorted(
    path.stem
    for path in CONFIGS.glob("*.yaml")
    if path.stem not in OVERLAYS | STRONG and not path.stem.startswith("sweep_")
)
# UNETR has 93 million parameters, so that a checkpoint has 1.1 GB.
SMALL_UNETR = "--model.network_options={hidden_size: 24, mlp_dim: 24, num_heads: 2, feature_size: 8}"
LOSSES = ("dice", "CE", "diceCE", "CEconf", "diceCEconf")
UNDRAWN = ["--pictures.cases=0", "--uncertainty.cases=0"]
# Test and predict do not depend on the loss, so that one configuration per body part, network and input mode is enough.
FIRST = {tuple(name.split("_")[:3]): name for name in reversed(ALL)}
ONLY_FITTED = set(ALL) - set(FIRST.values())
# Those that are run every time: all of one body part, and of the others one each.
ALWAYS = {name for name in ALL if name.startswith(("muscle_", "nerve_"))} | {"thyroid_unet_2ch_dice"}


@pytest.fixture(scope="module")
def data_sets(tmp_path_factory, muscle_set):
    """Small phantoms of both body parts, and one cache folder for the maps of all configurations."""
    root = tmp_path_factory.mktemp("thyroid_study")
    Phantom("thyroid", patients=11, size=(16, 24, 8), spacing=(3.0, 2.4, 12.0)).write(root)
    frames = tmp_path_factory.mktemp("frames")
    write_frames(muscle_set, frames)
    return {"muscle": muscle_set, "thyroid": root, "nerve": frames, "cache": tmp_path_factory.mktemp("cache")}


def write_frames(volumes: Path, root: Path) -> None:
    """Write one frame per volume as image files, in the layout of USGRA-Seg."""
    for folder, pattern in (("images", "x1.mha"), ("masks", "masksX1.mha")):
        (root / folder).mkdir()
        for index, path in enumerate(sorted(volumes.glob(f"*/*/{pattern}"))):
            frame = read_image(path).array[:, :, 8].T  # file order: lateral, depth, elevation
            values = np.searchsorted([100, 200], frame, side="right") if folder == "masks" else frame
            Image.fromarray(np.kron(values, np.ones((3, 2))).astype(np.uint8)).save(root / folder / f"{index:04d}.png")


def arguments_of(config, data_sets, output):
    data = config.split("_")[0]
    small = [SMALL_UNETR] if "unetr" in config else []
    return [
        f"--config={CONFIGS / config}.yaml",
        f"--data.root={data_sets[data]}",
        f"--data.cache_dir={data_sets['cache'] / data}",
        "--data.spatial_size=[32,32]" if data == "nerve" else "--data.spatial_size=[16,16,16]",
        "--data.num_workers=0",
        f"--output_dir={output}",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        *small,
    ]


@pytest.mark.parametrize(
    "config", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow) for name in ALL]
)
def test_every_configuration_fits_tests_and_predicts(config, data_sets, tmp_path, caplog, no_pictures):
    arguments = arguments_of(config, data_sets, tmp_path)
    # As fast as fast_dev_run, which writes no checkpoint.
    main(["fit", *arguments, "--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--pictures.cases=0"])
    folder = tmp_path / config / "fold0"
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert re.search(r"background: [\d,]+ parameters", caplog.text)
    if config in ONLY_FITTED:
        return
    main(["test", *arguments, "--ckpt_path=last"])
    main(["predict", *arguments, "--ckpt_path=last", "--prediction.maps=false"])
    cases = set(pd.read_csv(folder / "test_metrics.csv", dtype={"case": str})["case"])
    assert len(cases) >= 3
    written = (folder / "predictions").glob("*_segmentation*")
    assert {path.name.split("_segmentation")[0] for path in written} == cases


@pytest.mark.parametrize("dims", [2, 3])
def test_strong_configurations_plan_their_sizes(dims, data_sets, tmp_path, caplog, monkeypatch, no_pictures):
    if dims == 2:
        options = ["--data.classes={nerve: 1, vessel: 2}", "--data.image_folds=true"]
        root, sizes, strides = data_sets["nerve"], {"spatial_size": [48, 48], "patch_size": None}, [[2, 2]] * 3
    else:
        options = ["--data.layout=leg3d", "--data.classes={soleus: 100, medial: 150, lateral: 200}"]
        root, sizes = data_sets["muscle"], {"spatial_size": None, "patch_size": [16, 24, 16]}
        strides = [[2, 2, 1], [2, 2, 2]]  # frames are farther apart than pixels
    arguments = [
        f"--config={CONFIGS}/strong_{dims}d.yaml",
        f"--data.root={root}",
        f"--data.cache_dir={data_sets['cache'] / 'strong'}",
        f"--output_dir={tmp_path}",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--uncertainty.cases=0",
        *options,
    ]
    main(["fit", *arguments, "--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--pictures.cases=0"])
    assert "Plan: " in caplog.text
    folder = tmp_path / f"strong_{dims}d" / "fold0"
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    assert {name: stored["data"][name] for name in sizes} == sizes
    assert stored["data"]["batch_size"] >= 1
    assert stored["model"]["init_args"]["network_options"]["strides"] == strides
    # The sizes are those of the checkpoint, whatever the memory of the machine is.
    monkeypatch.setattr("cm_lightning.planning.resources.FRACTION", {"gpu": 0.0, "cpu": 0.0})
    main(["test", *arguments, "--ckpt_path=last"])
    main(["predict", *arguments, "--ckpt_path=last"])
    assert list((folder / "predictions" / "mirrored").glob("*_segmentation*"))


def test_strong_configuration_refuses_other_networks_and_classes_of_one_side(data_sets, tmp_path):
    arguments = [f"--config={CONFIGS}/strong_2d.yaml", f"--data.root={data_sets['nerve']}", f"--output_dir={tmp_path}"]
    arguments += ["--data.image_folds=true", "--trainer.accelerator=cpu"]
    with pytest.raises(InputError, match="flip would mirror images laterally, in which a class of the left side only"):
        main(["fit", *arguments, "--data.classes={left_nerve: 1, vessel: 2}"])
    with pytest.raises(InputError, match=r"plan chooses the sizes of a DynUNet, but model\.network is 'AttentionUnet'"):
        main(["fit", *arguments, "--data.classes={nerve: 1, vessel: 2}", "--model.network=AttentionUnet"])
    with pytest.raises(InputError, match=r"data\.batch_size is not set; expected a number, or --plan true"):
        main(["fit", *arguments, "--data.classes={nerve: 1, vessel: 2}", "--plan=false", "--data.spatial_size=[32,32]"])


def test_thyroid_and_muscle_configurations_differ_only_in_their_data():
    for name in ALL:
        if name.startswith("thyroid_"):
            thyroid = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
            muscle = yaml.safe_load((CONFIGS / f"{name.replace('thyroid_', 'muscle_')}.yaml").read_text())
            assert thyroid == {**muscle, "experiment": name, "data": "shared/thyroid.yaml"}


def test_names_agree_with_the_settings():
    assert {name.removeprefix("muscle_") for name in ALL if name.startswith("muscle_")} - {"2ch"} == {
        name.removeprefix("thyroid_") for name in ALL if name.startswith("thyroid_")
    }
    expected = {f"muscle_unet_{mode}_{loss.lower()}" for mode in ("1ch", "2ch") for loss in LOSSES}
    assert expected <= set(ALL)
    networks = {"unet": "UNet", "attunet": "AttentionUnet", "unetr": "UNETR", "deepatlas": None}
    for name in ALL:
        content = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        assert content["experiment"] == name
        if name in ("muscle_2ch", "nerve_2ch"):
            continue
        _, network, mode, loss, *sweep = name.split("_")
        model = content["model"]["init_args"]
        assert (model.get("network"), model["input_mode"], model["loss"].lower()) == (networks[network], mode, loss)
        assert content["model"]["class_path"].endswith("DeepAtlasTask") == (network == "deepatlas")
        if sweep:
            solver = content["solver"]
            assert [f"beta{solver['beta']:.0f}", f"alpha{solver['alpha']}"] == sweep
        else:
            assert content["solver"] == "shared/solver.yaml"


def test_readme_lists_every_configuration():
    listed = set(re.findall(r"`([a-z0-9_.]+)\.yaml`", (CONFIGS / "README.md").read_text()))
    assert listed == {path.stem for path in CONFIGS.glob("*.yaml")}


def run(*argv: str) -> str:
    """Run the command line in a separate process and return its output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-m", "cm_lightning", *argv], capture_output=True, text=True, check=False, env=environment
    )
    assert process.returncode == 0, process.stderr
    return process.stdout + process.stderr


@pytest.mark.parametrize(
    ("config", "epochs", "changes"),
    [
        pytest.param("muscle_unet_1ch_dicececonf", 20, [], marks=pytest.mark.slow),
        pytest.param("thyroid_attunet_2ch_dice", 20, [], marks=pytest.mark.slow),
        pytest.param("muscle_unetr_1ch_ce", 30, [], marks=pytest.mark.slow),
        pytest.param(
            *("muscle_deepatlas_2ch_dice", 4, ["--model.pretraining_epochs=2", "--data.labelled_fraction=0.5"]),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_architecture_trains_in_two_processes_and_reloads_in_another(
    config, epochs, changes, data_sets, tmp_path, no_pictures
):
    """Train in two processes that share gradients; evaluate the checkpoint in this process."""
    arguments = [*arguments_of(config, data_sets, tmp_path), *changes, *UNDRAWN, "--model.learning_rate=0.005"]
    arguments.append("--model.temperature_scaling=true")
    main(["fit", *arguments, "--experiment=untrained", "--trainer.max_epochs=1", "--model.learning_rate=0"])
    main(["test", *arguments, "--experiment=untrained", "--ckpt_path=last"])

    output = run("fit", *arguments, f"--trainer.max_epochs={epochs}", "--trainer.devices=2")
    assert "MEMBER: 2/2" in output
    main(["test", *arguments, "--ckpt_path=best"])

    def rows_of(experiment: str, name: str = "metrics") -> pd.DataFrame:
        rows = pd.read_csv(tmp_path / experiment / "fold0" / f"test_{name}.csv")
        keys = ["case", "class", "metric", "calibration", "bin"]
        return rows.sort_values([key for key in keys if key in rows], ignore_index=True)

    def mean_dice(experiment: str) -> float:
        return float(rows_of(experiment).query("metric == 'dice'")["value"].fillna(0).mean())

    assert mean_dice(config) > mean_dice("untrained") + 0.2
    if config.startswith("muscle_unet"):
        # The sampler repeats one of three cases to fill two processes; it must be counted once.
        rows, bins = rows_of(config), rows_of(config, "calibration")
        run("test", *arguments, "--ckpt_path=best", "--trainer.devices=2")
        pd.testing.assert_frame_equal(rows_of(config), rows)
        pd.testing.assert_frame_equal(rows_of(config, "calibration"), bins)


@pytest.mark.slow
def test_unetr_runs_in_its_published_size(data_sets, tmp_path):
    arguments = [item for item in arguments_of("muscle_unetr_2ch_dice", data_sets, tmp_path) if item != SMALL_UNETR]
    main(["fit", *arguments, "--trainer.fast_dev_run=true"])
    assert not list(tmp_path.iterdir())
