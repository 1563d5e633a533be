"""The command line: fit, test and predict, resuming, and invalid input."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from scipy import ndimage

from cm_lightning.io import read_image
from cm_lightning.main import main
from cm_lightning.metrics import METRICS
from cm_lightning.tasks import SegmentationTask
from tests.conftest import CONFIGS


def run(*argv: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cm_lightning", *argv], cwd=folder, capture_output=True, text=True, check=False
    )


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def timeless(folder: Path) -> list[dict[str, str]]:
    """Read the log of a run without the columns that contain times."""
    times = ("time/", "cm/solve_ms_per_frame")
    return [{key: value for key, value in row.items() if not key.startswith(times)} for row in metrics(folder)]


def test_help_version_and_print_config(tmp_path, capsys):
    for argv, expected in (
        (["--help"], "phantom"),
        (["fit", "--help"], "--solver.alpha"),
        (["test", "--help"], "Evaluate a network on the test cases"),
        (["--version"], "cm_lightning 0."),
        (["phantom", "--help"], "--patients"),
        (["fit", "--config", str(CONFIGS / "muscle_2ch.yaml"), "--print_config"], "input_mode: 2ch"),
    ):
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 0
        assert expected in capsys.readouterr().out


def test_overlay_keeps_other_settings(capsys):
    with pytest.raises(SystemExit):
        main(
            [
                "fit",
                "--config",
                str(CONFIGS / "muscle_2ch.yaml"),
                "--config",
                str(CONFIGS / "demo.yaml"),
                "--print_config",
            ]
        )
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["init_args"]["learning_rate"] == 1e-3
    solver = config["solver"]
    assert (solver["alpha"], solver["beta"], solver["gamma"], solver["formulation"]) == (0.5, 100.0, 0.05, "reference")
    assert config["data"]["phantom"]["variant"] == "muscle"
    assert config["trainer"]["max_epochs"] < 120


def test_fit_test_predict(trained, muscle_set, run_folder):
    assert {path.name for path in (run_folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    config = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert config["data"]["classes"]["soleus"] == 100
    logged = metrics(run_folder)
    assert {"train/loss", "val/loss", "val/dice/mean", "val/dice/soleus"} <= set(logged[0])
    for name in ("augmentation.png", "validation_epoch0001.png"):
        assert np.asarray(Image.open(run_folder / "pictures" / name).convert("L")).std() > 20

    main(["test", *trained, "--ckpt_path=best", "--model.nsd_tolerance={soleus: 1.5}"])
    rows = pd.read_csv(run_folder / "test_metrics.csv")
    assert len(rows) == 3 * 3 * len(METRICS)  # cases x classes x metrics
    assert set(rows["grouping"]) == {"patient"}
    assert set(rows["unit"]) == {"mm"}
    # The image has 16 x 24 x 16 voxels of 3 x 2.4 x 6 mm; the grid of the network does not matter.
    np.testing.assert_allclose(rows["diagonal"], np.sqrt(48**2 + 57.6**2 + 96**2))
    assert (run_folder / "test_summary.csv").is_file()
    assert set(rows["tolerance"][rows["class"] == "soleus"]) == {1.5}
    assert set(rows["tolerance"][rows["class"] != "soleus"]) == {2.0}
    cases = json.loads((run_folder / "summary.json").read_text())["metric_per_case"]
    for case in cases:
        voxels = [case["metrics"]["soleus"][name] for name in ("TP", "FP", "FN", "TN")]
        assert sum(voxels) == 16 * 24 * 16
    for case in set(rows["case"]):
        assert np.asarray(Image.open(run_folder / "pictures" / f"test_{case}.png").convert("L")).std() > 20
    assert "val/loss" in metrics(run_folder)[0]  # testing keeps the log of training

    main(["predict", *trained, "--ckpt_path=best"])
    case = rows["case"].iloc[0]
    image = read_image(next(muscle_set.glob(f"*/{case.removesuffix('_x1')}/x1.mha")))
    written = {
        name: nibabel.load(run_folder / "predictions" / f"{case}_{name}.nii.gz")
        for name in ("segmentation", "probabilities", "entropy", "confidence")
    }
    for name, file in written.items():
        assert file.shape[:3] == image.array.shape, name
        np.testing.assert_allclose(file.affine, image.affine, atol=1e-5)
    assert set(np.unique(written["segmentation"].dataobj)) <= {0, 100, 150, 200}
    probabilities = np.asarray(written["probabilities"].dataobj)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(
        np.array([0, 100, 150, 200])[probabilities.argmax(axis=-1)], np.asarray(written["segmentation"].dataobj)
    )
    confidence = np.asarray(written["confidence"].dataobj)
    assert confidence[:, 0].mean() > 0.9  # file order: lateral, depth, elevation
    assert confidence[:, -1].mean() < 0.1

    task = SegmentationTask.load_from_checkpoint(run_folder / "checkpoints" / "best.ckpt")
    assert task.class_names == ["soleus", "gastrocnemius_medialis", "gastrocnemius_lateralis"]


def test_error_levels_and_largest_component(trained, run_folder, no_pictures):
    file = run_folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=False)
    names = ["soleus", "gastrocnemius_medialis", "gastrocnemius_lateralis"]
    assert list(checkpoint["largest_component_gain"]) == names
    assert any(checkpoint["largest_component_gain"].values())  # two epochs leave many small components
    checkpoint["largest_component_gain"] = dict(zip(names, [0.1, 0.0, -0.1], strict=True))
    torch.save(checkpoint, file)

    def run_test(*argv):
        main(["test", *trained, *argv])
        rows, levels = (pd.read_csv(run_folder / f"test_{name}.csv") for name in ("metrics", "levels"))
        return rows.set_index(["postprocessing", "class", "metric", "case"])["value"].sort_index(), levels

    rows, levels = run_test("--ckpt_path=last", "--model.largest_component=true")
    assert rows.loc[("largest component", "soleus", "islands")].dropna().eq(0).all()
    for name in names[1:]:  # not chosen by the validation
        plain = rows.loc[("none", name)].drop(["ece", "ace", "brier"])  # not defined for masks
        pd.testing.assert_series_equal(rows.loc[("largest component", name)], plain)
    # All voxels are insonified, so that the levels contain all of them.
    for by in ("confidence", "depth"):
        counts = levels[levels["by"] == by].groupby(["class", "case"])[["true_positive", "false_negative"]].sum()
        recall = counts["true_positive"] / counts.sum(axis=1)
        for name in names:
            np.testing.assert_allclose(recall.loc[name].sort_index(), rows.loc[("none", name, "recall")].sort_index())
    assert json.loads((run_folder / "test_plan.json").read_text())["made_with"]["torch"] == torch.__version__

    main(["predict", *trained, "--ckpt_path=last", "--model.largest_component=true", "--prediction.maps=false"])
    for path in (run_folder / "predictions").iterdir():
        soleus = np.asarray(nibabel.load(path).dataobj) == 100
        assert ndimage.label(soleus, np.ones((3, 3, 3)))[1] <= 1

    # The levels are those of the map of the image also under a control. Without a validation no class is chosen.
    _, under_control = run_test("--ckpt_path=best", "--data.confidence_source=depth")
    keys = ["case", "class", "by", "level"]
    label_counts = [
        table.set_index(keys)[["true_positive", "false_negative"]].sum(axis=1).sort_index()
        for table in (levels, under_control)
    ]
    pd.testing.assert_series_equal(*label_counts)
    checkpoint["largest_component_gain"] = None
    torch.save(checkpoint, file)
    with pytest.raises(ValueError, match="needs the validation results of the checkpoint"):
        run_test("--ckpt_path=last", "--model.largest_component=true")


@pytest.mark.parametrize(
    "change",
    [
        ["--model.input_mode=1ch", "--data.confidence_mode=none"],
        ["--model.input_mode=1ch", "--model.loss=CEconf"],
        ["--model.loss=CE", "--data.confidence_mode=on_the_fly", "--data.augmentation.rotation=5"],
        ["--model.loss=diceCE", "--data.split=official"],
        ["--data.spatial_size=null", "--data.patch_size=[16,16,16]", "--data.split=kfold", "--data.fold=2"],
    ],
    ids=["1ch-dice", "1ch-CEconf", "on-the-fly", "official", "patches"],
)
def test_modes_run_through_fit_and_test(muscle_arguments, tmp_path, no_pictures, change):
    arguments = [*muscle_arguments, *change, "--trainer.max_epochs=1"]
    main(["fit", *arguments])
    main(["test", *arguments, "--ckpt_path=last"])
    (table,) = (tmp_path / "outputs").rglob("test_metrics.csv")
    costs = [float(row.get("cm/solve_ms_per_frame") or 0) for row in metrics(table.parent)]
    assert (max(costs) > 0) == ("--data.confidence_mode=none" not in change)
    assert np.isfinite(pd.read_csv(table).query("metric == 'fall_out'")["value"]).all()


def test_nerve_config_on_real_frames(real_data, tmp_path, no_pictures):
    # 12 real frames in the layout of the data set.
    for folder in ("images", "masks"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        for path in sorted((real_data / "usgra_seg" / folder).iterdir())[:12]:
            (tmp_path / "set" / folder / path.name).symlink_to(path)
    arguments = [
        "--config",
        str(CONFIGS / "nerve_2ch.yaml"),
        f"--data.root={tmp_path / 'set'}",
        f"--data.cache_dir={tmp_path / 'cache'}",
        f"--output_dir={tmp_path / 'outputs'}",
        "--data.confidence_mode=on_the_fly",
        "--data.spatial_size=[64,64]",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]
    main(["fit", *arguments])
    main(["test", *arguments, "--ckpt_path=best"])
    rows = pd.read_csv(tmp_path / "outputs" / "nerve_2ch" / "fold0" / "test_metrics.csv")
    assert set(rows["unit"]) == {"px"}
    assert rows["grouping"].str.contains("names no patients").all()
    main(["predict", *arguments, "--ckpt_path=best", f"--data.predict_path={tmp_path / 'set' / 'images' / '0003.png'}"])
    folder = tmp_path / "outputs" / "nerve_2ch" / "fold0" / "predictions"
    assert Image.open(folder / "0003_segmentation.png").size == (512, 512)
    assert nibabel.load(folder / "0003_confidence.nii.gz").shape == (512, 512)


def test_training_beats_the_untrained_network(muscle_arguments, run_folder, no_pictures):
    arguments = [*muscle_arguments, "--trainer.max_epochs=12", "--model.loss=diceCE", "--model.learning_rate=0.005"]
    main(["fit", *arguments])
    dice = [float(row["val/dice/mean"]) for row in metrics(run_folder) if row["val/dice/mean"]]
    assert max(dice) > dice[0] + 0.2
    assert max(dice) > 0.5


def test_two_runs_with_one_seed_are_the_same(muscle_arguments, tmp_path, no_pictures):
    logs = []
    for name in ("a", "b"):
        arguments = [*muscle_arguments, f"--experiment={name}", "--data.augmentation.rotation=5"]
        main(["fit", *arguments])
        main(["test", *arguments, "--ckpt_path=last"])
        logs.append(timeless(tmp_path / "outputs" / name / "fold0"))
    assert logs[0] == logs[1]


def test_sampling_pictures_does_not_change_training(muscle_arguments, tmp_path, monkeypatch, no_pictures):
    main(["fit", *muscle_arguments, "--experiment=with"])
    monkeypatch.setattr("cm_lightning.callbacks.AugmentationPicture.on_train_start", lambda *_: None)
    main(["fit", *muscle_arguments, "--experiment=without"])
    assert timeless(tmp_path / "outputs/with/fold0") == timeless(tmp_path / "outputs/without/fold0")


def test_interrupted_run_resumes_where_it_stopped(muscle_arguments, run_folder, no_pictures):
    """After Ctrl-C and --ckpt_path last, no epoch is trained or logged twice, and none is missing."""
    arguments = [*muscle_arguments, "--trainer.max_epochs=400"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cm_lightning", "fit", *arguments, "--pictures.cases=0", "--uncertainty.cases=0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    last = run_folder / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 240
    while not last.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert last.is_file(), process.stderr.read().decode()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    process.wait(60)
    assert process.returncode != 0

    finished = torch.load(last, weights_only=True)["epoch"] + 1
    assert finished < 400
    main(["fit", *muscle_arguments, f"--trainer.max_epochs={finished + 2}", "--ckpt_path=last"])
    epochs = [int(row["epoch"]) for row in metrics(run_folder) if row["train/loss"]]
    # Lightning logs an epoch after its checkpoint: a signal between the two loses only the row of that epoch.
    assert epochs in (list(range(finished + 2)), [epoch for epoch in range(finished + 2) if epoch != finished - 1])


def test_resumed_run_reports_changed_settings(trained, caplog, no_pictures):
    main(["fit", *trained, "--trainer.max_epochs=3", "--ckpt_path=last"])
    assert "Resumed with trainer.max_epochs 3; the run was started with 2." in caplog.text


def test_settings_of_the_checkpoint_are_kept_and_reported(trained, caplog, no_pictures):
    main(["fit", *trained, "--trainer.max_epochs=3", "--ckpt_path=last", "--model.learning_rate=0.5"])
    assert "model.init_args.learning_rate is 0.001, as in the checkpoint; 0.5 was ignored." in caplog.text


def test_occupied_folder_is_not_overwritten_silently(trained, run_folder, no_pictures):
    before = (run_folder / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    with pytest.raises(ValueError, match=r"already contains a run. Resume it with --ckpt_path last"):
        main(["fit", *trained])
    assert (run_folder / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before
    main(["fit", *trained, "--overwrite=true", "--trainer.max_epochs=1"])
    assert {row["epoch"] for row in metrics(run_folder)} == {"0"}


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_no_evaluation_without_weights(muscle_arguments, command):
    with pytest.raises(ValueError, match=f"{command} needs trained weights and found no --ckpt_path"):
        main([command, *muscle_arguments])


@pytest.mark.parametrize("command", ["fit", "test"])
def test_last_without_a_checkpoint_is_an_error(muscle_arguments, command):
    with pytest.raises(FileNotFoundError, match=r"The checkpoint .*last.ckpt .* does not exist"):
        main([command, *muscle_arguments, "--ckpt_path=last"])


def test_missing_data_is_one_sentence_without_traceback(tmp_path):
    result = run("fit", "--config", str(CONFIGS / "muscle_2ch.yaml"), folder=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "error: There is no data set at data/LEG-3D-US" in result.stderr
    for expected in ("masksX1.mha", "can be downloaded from", "configs/demo.yaml"):
        assert expected in result.stderr


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("--model.network=VNet", "VNet"),
        ("--model.loss=focal", "focal"),
        ("--data.layout=dicom", "dicom"),
        ("--model.nonsense=1", "nonsense"),
    ],
)
def test_unknown_names_are_errors(muscle_arguments, capsys, change, expected):
    with pytest.raises(SystemExit) as end:
        main(["fit", *muscle_arguments, change])
    assert end.value.code == 2
    assert expected in capsys.readouterr().err


def test_invalid_image_size_is_an_early_error(muscle_arguments):
    with pytest.raises(ValueError, match=r"^UNet .*multiples of 8.*\[16, 16, 16\] would be valid"):
        main(["fit", *muscle_arguments, "--data.spatial_size=[20,16,16]"])


def test_phantom_command_writes_a_data_set_for_training(tmp_path, capsys):
    main(["phantom", str(tmp_path / "set"), "--patients=11", "--size=[16,16,4]", "--spacing=[3.0,3.0,24.0]"])
    assert "contains 11 muscle phantoms" in capsys.readouterr().out
    main(
        [
            "fit",
            "--config",
            str(CONFIGS / "muscle_2ch.yaml"),
            f"--data.root={tmp_path / 'set'}",
            "--data.spatial_size=[16,16,16]",
            f"--data.cache_dir={tmp_path / 'cache'}",
            "--trainer.fast_dev_run=true",
            f"--output_dir={tmp_path / 'outputs'}",
        ]
    )


def test_demo_overlay_writes_a_phantom_and_trains(tmp_path):
    """The configuration of the demo with a smaller phantom."""
    arguments = [
        "--config",
        str(CONFIGS / "muscle_2ch.yaml"),
        "--config",
        str(CONFIGS / "demo.yaml"),
        f"--data.root={tmp_path / 'phantom'}",
        "--data.phantom.size=[16,16,4]",
        "--data.phantom.patients=11",
        "--data.spatial_size=[16,16,16]",
        f"--data.cache_dir={tmp_path / 'cache'}",
        f"--output_dir={tmp_path / 'outputs'}",
        "--trainer.max_epochs=1",
        "--trainer.enable_progress_bar=false",
    ]
    main(["fit", *arguments])
    assert (tmp_path / "outputs" / "demo" / "fold0" / "pictures" / "validation_epoch0000.png").is_file()
