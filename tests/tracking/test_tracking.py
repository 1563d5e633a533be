"""Logging to W&B and TensorBoard, read from the files of offline runs."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pandas as pd
import psutil
import pytest
import wandb
from matplotlib import colormaps
from PIL import Image
from pytorch_lightning import Callback, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.sdk.data_types._private import MEDIA_TMP

from cm_lightning.drawing.panels import Panel, Scale
from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.main import main
from cm_lightning.tracking.dashboard import MUSCLES, build_dashboard, panel_keys
from cm_lightning.tracking.loggers import WandbRunLogger
from cm_lightning.tracking.policy import RunIdentity, WandbSettings, resolve_mode
from cm_lightning.tracking.publishing import common_shape, make_picture, padded, publish_pictures
from cm_lightning.tracking.sync import correct_paths, list_pictures, sync

KEY = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+)*")


def set_environment(monkeypatch, folder, mode="offline"):
    """Remove all W&B settings and logins, and let W&B write all files to one folder."""
    for name in ("WANDB_API_KEY", "WANDB_RUN_ID", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder / "home"))
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(folder / "home" / name))
    if mode is None:
        monkeypatch.delenv("WANDB_MODE", raising=False)
    else:
        monkeypatch.setenv("WANDB_MODE", mode)
    wandb.teardown()  # W&B stores the environment of earlier tests


@pytest.fixture
def offline(monkeypatch, tmp_path):
    set_environment(monkeypatch, tmp_path)


def offline_runs(folder):
    return sorted((folder / "wandb").glob("offline-run-*"))


def read(run):
    """Return all records of the file of a run, and its summary."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    summary = subprocess.run([*command, "--summary"], capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in lines], json.loads(summary)


def run_record(records):
    return next(record["run"] for record in records if record["type"] == "run")


def history(records):
    return [record["history"]["item"] for record in records if record["type"] == "history"]


def logged_keys(records):
    """Return all logged keys; W&B stores media as NAME._type etc."""
    keys = {key.split("._")[0] for item in history(records) for key in item}
    return {key.split(".")[0] for key in keys} - {""} - {key for key in keys if key.startswith("_")}


def file_of(run, summary, key):
    return run / "files" / summary["summary"][key]["filenames"][0]


@pytest.fixture(scope="module")
def folds(muscle_set, tmp_path_factory):
    """Return an experiment with two folds that were trained (one was resumed), tested and summarised."""
    folder = tmp_path_factory.mktemp("tracked")
    configs = Path(__file__).parents[2] / "configs"
    arguments = [
        "--config",
        str(configs / "muscle_2ch.yaml"),
        f"--data.root={muscle_set}",
        "--data.spatial_size=[16,16,16]",
        "--data.num_workers=0",
        "--data.split=kfold",
        "--data.n_folds=2",
        f"--data.cache_dir={folder / 'cache'}",
        f"--output_dir={folder / 'outputs'}",
        "--wandb.project=muscles",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    ]
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_environment(monkeypatch, folder)
        main(["fit", *arguments, "--data.fold=0", "--trainer.max_epochs=1", "--tensorboard=true"])
        main(["fit", *arguments, "--data.fold=0", "--trainer.max_epochs=2", "--ckpt_path=last"])
        main(["fit", *arguments, "--data.fold=1", "--trainer.max_epochs=2"])
        for fold in (0, 1):
            main(["test", *arguments, f"--data.fold={fold}", "--trainer.max_epochs=2", "--ckpt_path=best"])
        # All folds are finished, so that this only writes the summary.
        main(["crossval", *arguments, "--trainer.max_epochs=2", "--devices", "cpu"])
    return folder / "outputs" / "muscle_2ch"


def test_folds_are_runs_of_one_group(folds):
    first, resumed, tested = (read(run) for run in offline_runs(folds / "fold0"))
    runs = [run_record(records) for records, _ in (first, resumed, tested)]
    other = run_record(read(offline_runs(folds / "fold1")[0])[0])
    assert len({run["run_id"] for run in runs}) == 1
    assert other["run_id"] != runs[0]["run_id"]
    for fold, run in enumerate([runs[0], other]):
        assert (run["run_group"], run["job_type"], run["project"]) == ("muscle_2ch", "fold", "muscles")
        assert run["display_name"] == f"muscle_2ch/fold{fold}"
    config = first[1]["config"]
    assert config["data"]["fold"] == 0
    assert config["model"]["init_args"]["input_mode"] == "2ch"
    assert config["solver"]["beta"] == 100
    # The CSV file contains the values of all runs of the fold.
    table = pd.read_csv(folds / "fold0" / "metrics.csv")
    best = resumed[1]["summary"]["best/val/dice/mean"]
    assert best == pytest.approx(table["val/dice/mean"].max())
    epochs = [item["epoch"] for item in history(resumed[0]) if "val/dice/mean" in item]
    assert epochs == [1]
    keys = logged_keys(first[0]) | logged_keys(tested[0])
    assert not [key for key in keys if not KEY.fullmatch(key)]
    for name in ("dice", "iou", "precision", "recall", "miss_rate", "fall_out", "asd", "hd"):
        assert {f"{stage}/{name}/{suffix}" for stage in ("val", "test") for suffix in ("mean", "soleus")} <= keys
    expected = "train/loss train/lr val/loss mc/entropy/mean mc/entropy/soleus mc/ece cm/mean cm/solve_ms_per_frame"
    media = " time/epoch_s time/cases_per_s tables/test_cases plots/reliability plots/confusion"
    media += "".join(f" media/val/{name}" for name in ("overlay", "confidence", "error", "entropy"))
    assert set((expected + media).split()) <= keys


def test_pictures_and_tables_of_a_fold(folds):
    fitted, _, tested = offline_runs(folds / "fold0")
    _, summary = read(fitted)
    overlay = summary["summary"]["media/val/overlay"]
    assert overlay["count"] == len(overlay["filenames"]) == 1  # there is one validation case
    pixels = np.asarray(Image.open(file_of(fitted, summary, "media/val/overlay")))
    assert pixels.dtype == np.uint8
    assert 40 < pixels.mean() < 215
    masks = overlay["all_masks"][0]
    assert set(masks) == {"label", "prediction"}
    label = np.asarray(Image.open(fitted / "files" / masks["label"]["path"]))
    assert label.shape[:2] == pixels.shape[:2]
    assert {1, 2, 3} <= set(np.unique(label)) <= {0, 1, 2, 3}
    # The error is where label and prediction differ.
    prediction = np.asarray(Image.open(fitted / "files" / masks["prediction"]["path"]))
    error = np.asarray(Image.open(file_of(fitted, summary, "media/val/error")).convert("L"))
    assert np.mean((error > 100) == (label != prediction)) > 0.95
    _, summary = read(tested)
    table = json.loads((tested / "files" / summary["summary"]["tables/test_cases"]["path"]).read_text())
    dice = [row[table["columns"].index("dice")] for row in table["data"]]
    stored = pd.read_csv(folds / "fold0" / "test_cases.csv")
    assert dice == sorted(dice)
    assert dice == pytest.approx(stored["dice"].to_list(), abs=1e-4)
    assert [row[table["columns"].index("case")] for row in table["data"]] == stored["case"].to_list()
    counts = pd.read_csv(folds / "fold0" / "test_confusion.csv", index_col="label")
    assert counts.to_numpy().sum() == len(stored) * 16 * 24 * 16
    assert Image.open(file_of(tested, summary, "plots/confusion")).size > (100, 100)


def test_cross_validation_has_a_summary_run(folds):
    (run,) = offline_runs(folds)
    records, summary = read(run)
    summary_run = run_record(records)
    assert (summary_run["run_group"], summary_run["job_type"]) == ("muscle_2ch", "cv-summary")
    table = pd.read_csv(folds / "cv_summary.csv")
    table = table[(table["class"] == "mean") & (table["policy"] == "worst")].set_index("metric")
    for metric in ("dice", "hd"):
        assert summary["summary"][f"cv/{metric}/mean"] == pytest.approx(table["mean"][metric])
        assert summary["summary"][f"cv/{metric}/std"] == pytest.approx(table["sd_patients"][metric])
    folds_table = json.loads((run / "files" / summary["summary"]["tables/cv_folds"]["path"]).read_text())
    assert [row[0] for row in folds_table["data"]] == ["0", "1", "mean", "SD over patients", "SD over folds"]
    assert "plots/cv_box" in summary["summary"]


def test_all_keys_of_the_dashboard_are_logged(folds):
    pytest.importorskip("wandb_workspaces")
    panels = panel_keys(build_dashboard("team", "muscles", "dashboard", MUSCLES))
    logged = [logged_keys(read(run)[0]) for run in offline_runs(folds / "fold0")]
    (summary,) = (logged_keys(read(run)[0]) for run in offline_runs(folds))
    assert sorted(panels - summary.union(*logged)) == []
    # Means over folds do not include the summary run.
    assert {key for key in panels & summary if any(key in keys for keys in logged)} == set()


def test_copied_folders_can_be_uploaded(folds, tmp_path, monkeypatch, capsys):
    copied = shutil.copytree(folds / "fold0", tmp_path / "copy" / "fold0")
    tested = offline_runs(copied)[-1]
    before, _ = read(tested)
    sync([copied], dry_run=True)
    assert "0 paths" not in capsys.readouterr().out.splitlines()[-1]
    after, _ = read(tested)

    def entries(records):
        artifacts = [record["artifact"] for record in records if record["type"] == "artifact"]
        return [entry for artifact in artifacts for entry in artifact["manifest"]["contents"]]

    assert entries(before)
    assert all(Path(entry["local_path"]).is_relative_to(copied) for entry in entries(after))
    assert all(Path(entry["local_path"]).is_file() for entry in entries(after))
    for original, corrected in zip(before, after, strict=True):
        if original["type"] != "artifact":
            assert original == corrected
    assert correct_paths(tested) == 0
    with pytest.raises(MissingInputError, match="contains no wandb/offline-run"):
        sync([tmp_path / "home"])
    file = next(tested.glob("*.wandb"))
    file.write_bytes(file.read_bytes()[:20] + b"?" + file.read_bytes()[21:])
    with pytest.raises(InputError, match="damaged"):
        correct_paths(tested)


def test_pictures_of_patients_stay_here_unless_they_are_asked_for(folds, tmp_path, monkeypatch, capsys):
    run, _, tested = offline_runs(folds / "fold0")
    sent = []

    def upload(command, check):
        for folder in map(Path, command[5:]):
            sent.append(Path(shutil.copytree(folder, tempfile.mkdtemp(dir=tmp_path) + f"/{folder.name}")))
            next(folder.glob("*.wandb")).with_suffix(".wandb.synced").touch()
        return subprocess.CompletedProcess(command, 0)

    def sync_without_network(**options):
        sent.clear()
        with monkeypatch.context() as patch:
            patch.setattr("cm_lightning.tracking.sync.subprocess.run", upload)
            sync([folds / "fold0"], **options)

    sync_without_network()
    assert "pictures of cases stay here" in capsys.readouterr().out
    assert [folder.name for folder in sent] == [folder.name for folder in offline_runs(folds / "fold0")]
    for original, copy in zip(offline_runs(folds / "fold0"), sent, strict=True):
        before, summary_before = read(original)
        after, summary_after = read(copy)
        assert logged_keys(after) == {key for key in logged_keys(before) if not key.startswith("media/")}
        kept = {key: value for key, value in summary_before["summary"].items() if not key.startswith("media/")}
        assert summary_after["summary"] == kept
        assert list_pictures(copy) == []
        assert list_pictures(original) or original == tested
        assert b"images/media/" not in next(copy.glob("*.wandb")).read_bytes()
        assert list(original.glob("*.synced"))
    assert "media/val/overlay" in logged_keys(read(run)[0])  # the files here keep them
    assert "media/test/worst" in logged_keys(read(tested)[0])
    assert list((sent[-1] / "files").rglob("confusion*.png"))
    sync_without_network(pictures=True)
    assert [list_pictures(copy) != [] for copy in sent] == [True, True, True]


def test_tensorboard_contains_scalars_and_pictures(folds):
    events = EventAccumulator(str(folds / "fold0" / "tensorboard"))
    events.Reload()
    assert {"train/loss", "val/dice/mean", "val/hd/soleus"} <= set(events.Tags()["scalars"])
    assert {"media/val/overlay/label/0", "media/val/entropy/0"} <= set(events.Tags()["images"])


def test_pictures_of_one_gallery_have_the_same_size():
    pictures = [np.ones((4, 6, 3), np.uint8), np.full((5, 2), 7, np.uint8)]
    shape = common_shape(pictures)
    assert shape == (5, 6)
    wide, high = (padded(picture, shape) for picture in pictures)
    assert (wide.shape, high.shape) == ((5, 6, 3), (5, 6))
    assert (wide[:4] == 1).all()
    assert not wide[4:].any()
    assert (high[:, :2] == 7).all()
    assert not high[:, 2:].any()


def test_logged_pictures_have_the_expected_pixels(offline, tmp_path):
    identity = RunIdentity(tmp_path / "fold0", "x/fold0", "x", "fold")
    logger = WandbRunLogger(WandbSettings(), identity)
    trainer = Trainer(logger=logger, accelerator="cpu", enable_progress_bar=False, default_root_dir=tmp_path)
    ramp = np.tile(np.linspace(0, 1, 64), (32, 1))
    label = (ramp > 0.5) * np.uint8(2)
    grey = make_picture(Panel("ramp", ramp, (1.0, 1.0), "mm"), label=label)
    half = Panel("half", np.full((32, 64), 0.5 * np.log(4)), (2.0, 1.0), "mm", scale=Scale("H", np.log(4), "magma"))
    publish_pictures(trainer, "media/grey", [grey], ["a", "b"])
    publish_pictures(trainer, "media/half", [make_picture(half)], ["a", "b"])
    logger.finalize("success")
    (run,) = offline_runs(tmp_path / "fold0")
    _, summary = read(run)
    logged = np.asarray(Image.open(file_of(run, summary, "media/grey")).convert("L")).astype(float)
    assert logged.shape == (192, 384)
    expected = np.interp((np.arange(384) + 0.5) / 6 - 0.5, np.arange(64), 255 * ramp[0])
    assert np.abs(logged - expected).max() < 6
    mask = summary["summary"]["media/grey"]["all_masks"][0]["label"]["path"]
    assert np.array_equal(np.asarray(Image.open(run / "files" / mask)), np.repeat(np.repeat(label, 6, 0), 6, 1))
    colour = np.asarray(Image.open(file_of(run, summary, "media/half"))).reshape(-1, 3)
    assert np.abs(colour.mean(axis=0) - 255 * np.array(colormaps["magma"](0.5)[:3])).max() < 4
    assert Image.open(file_of(run, summary, "media/half")).size == (384, 384)


def test_training_continues_without_network_and_after_errors_of_wandb(
    muscle_arguments, run_folder, tmp_path, monkeypatch, caplog
):
    set_environment(monkeypatch, tmp_path, mode="online")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("cm_lightning.tracking.policy.SECONDS_TO_CONNECT", 2.0)
    from wandb import Run

    original_log = Run.log

    def fail_later(run, data, *args, **kwargs):
        if data.get("epoch", 0) >= 1:
            raise OSError("disk full")
        return original_log(run, data, *args, **kwargs)

    monkeypatch.setattr(Run, "log", fail_later)
    with caplog.at_level("INFO"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        main(["fit", *muscle_arguments, "--trainer.max_epochs=3"])
    assert any("offline (no connection" in message for message in caplog.messages)
    assert sum("disabled because of an error: disk full" in str(warning.message) for warning in caught) == 1
    assert (pd.read_csv(run_folder / "metrics.csv")["epoch"].max()) == 2
    assert len(offline_runs(run_folder)) == 1


class KilledService(Callback):
    def on_train_epoch_end(self, trainer, task):
        services = [child for child in psutil.Process().children(recursive=True) if "wandb" in child.name()]
        assert services or trainer.current_epoch > 0
        for service in services:
            service.kill()


class SweptFiles(Callback):
    def on_train_epoch_end(self, trainer, task):
        shutil.rmtree(MEDIA_TMP.name, ignore_errors=True)


@pytest.mark.parametrize("event", [KilledService, pytest.param(SweptFiles, marks=pytest.mark.slow)])
def test_training_outlives_the_service_and_the_temporary_files_of_wandb(
    muscle_arguments, run_folder, tmp_path, offline, event
):
    file = tmp_path / "callbacks.yaml"
    file.write_text(f"trainer: {{callbacks: [{{class_path: {__name__}.{event.__name__}}}]}}")
    try:
        main(["fit", *muscle_arguments, "--trainer.max_epochs=3", "--pictures.every_n_epochs=1", f"--config={file}"])
    finally:
        Path(MEDIA_TMP.name).mkdir(exist_ok=True)
        with suppress(ConnectionError):
            wandb.teardown()
    assert pd.read_csv(run_folder / "metrics.csv")["epoch"].max() == 2
    assert (run_folder / "finished.json").is_file()


def test_pictures_are_written_without_a_logger(muscle_arguments, run_folder, offline):
    main(["fit", *muscle_arguments, "--trainer.max_epochs=1", "--trainer.logger=false"])
    assert (run_folder / "pictures" / "validation_epoch0000.png").is_file()
    assert not (run_folder / "wandb").exists()
    assert not (run_folder / "metrics.csv").exists()


@pytest.mark.slow
def test_two_processes_are_one_run(muscle_arguments, run_folder, tmp_path, monkeypatch):
    set_environment(monkeypatch, tmp_path)
    arguments = [*muscle_arguments, "--trainer.max_epochs=1", "--trainer.devices=2", "--trainer.strategy=ddp"]
    command = [sys.executable, "-m", "cm_lightning", "fit", *arguments]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
    assert process.returncode == 0, process.stderr[-3000:]
    (run,) = offline_runs(run_folder)
    records, summary = read(run)
    assert summary["state"] == "finished"
    table = pd.read_csv(run_folder / "metrics.csv")
    assert summary["summary"]["val/dice/mean"] == pytest.approx(table["val/dice/mean"].dropna().iloc[-1])
    assert {"media/val/overlay", "mc/entropy/mean", "val/recall/mean", "time/epoch_s"} <= logged_keys(records)


@pytest.mark.parametrize(
    ("mode", "environment", "expected"),
    [
        ("auto", None, "offline"),
        ("auto", "online", "offline"),  # there is no login
        ("auto", "disabled", "disabled"),
        ("offline", "online", "offline"),
        ("disabled", "online", "disabled"),
        ("auto", "dryrun", "offline"),
    ],
)
def test_more_restrictive_mode_is_used(mode, environment, expected, tmp_path, monkeypatch):
    set_environment(monkeypatch, tmp_path, mode=environment)
    assert resolve_mode(WandbSettings(mode))[0] == expected
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    host = urlparse(wandb.setup().settings.base_url).hostname
    (tmp_path / "netrc").write_text(f"machine {host} login user password {'0123456789' * 4}\n")
    online = (mode, environment) in [("auto", None), ("auto", "online")]
    assert resolve_mode(WandbSettings(mode))[0] == ("online" if online else expected)
