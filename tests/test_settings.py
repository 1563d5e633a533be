"""Invalid settings and configuration files, of which each is one sentence before anything is read or written."""

import numpy as np
import pytest
import yaml
from PIL import Image

from cm_lightning.errors import InputError
from cm_lightning.main import main

CONFIG = {
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False},
    "model": {
        "class_path": "cm_lightning.tasks.SegmentationTask",
        "init_args": {"network_options": {"channels": [4, 8], "strides": [2], "dropout": 0.1}, "input_mode": "1ch"},
    },
    "data": {
        "root": "set",
        "layout": "folder",
        "classes": {"nerve": 1},
        "spatial_dims": 2,
        "spatial_size": [16, 16],
        "patient_pattern": r"(p\d)",
        "confidence_mode": "none",
    },
}


@pytest.fixture
def folder(tmp_path, rng, monkeypatch):
    """Write a data set of four patients and a configuration, and work in their folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for number in range(4):
        label = np.zeros((24, 20), np.uint8)
        label[4:9, 3:8] = 1
        Image.fromarray(rng.integers(1, 255, (24, 20), np.uint8)).save(tmp_path / "set" / "images" / f"p{number}.png")
        Image.fromarray(label).save(tmp_path / "set" / "masks" / f"p{number}.png")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def sentence_of(capsys, *arguments):
    """Return the error of a command line, which is one sentence."""
    with pytest.raises((InputError, SystemExit)) as raised:
        main(list(arguments))
    return capsys.readouterr().err if isinstance(raised.value, SystemExit) else str(raised.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--solver.beta=-1", "beta must be a finite number of at least 0, found -1.0"),
        ("--solver.tolerance=0", "tolerance must be between 0 and 1"),
        ("--solver.max_batch=0", "max_batch must be at least 1"),
        ("--model.learning_rate=-1", "Invalid learning rate: -1.0"),
        ("--seed_everything=-5", "seed_everything must be from 0"),
        ("--trainer.max_epochs=-2", "max_epochs"),
        ("--trainer.accelerator=gpu", "gpu"),
        ("--data.num_workers=-1", "data.num_workers must be from 0"),
        ("--data.num_workers=1000000", "data.num_workers must be from 0"),
        ("--data.cache_rate=2", "data.cache_rate must be from 0 to 1, found 2"),
        ("--data.spatial_size=[10000000,10000000]", "expected a smaller size"),
        ("--data.classes={no: 1}", "data.classes contains the name"),
        ("--data.classes={1: 1}", "data.classes contains the name '1'"),
        ("--data.classes={null: 1}", "data.classes contains the name"),
        ("--data.classes={mean: 1}", "data.classes contains the name 'mean'"),
        ("--data.classes={../a: 1}", "without slashes"),
        ("--data.spacing_mm=[0,1]", "data.spacing_mm must be positive numbers"),
        ("--data.patient_pattern=(", "is no regular expression"),
        ("--model.mc_dropout.samples=1", "mc_dropout needs samples of at least 2"),
        ("--uncertainty.samples=1", "mc_dropout needs samples of at least 2"),
        ("--uncertainty.every_n_epochs=0", "uncertainty.every_n_epochs must be at least 1"),
        ("--pictures.cases=-1", "pictures.cases at least 0"),
        ("--checkpoint.monitor=val/dcie/mean", "is not logged; expected a metric such as val/dice/mean"),
    ],
)
def test_settings(folder, capsys, option, message):
    assert message in sentence_of(capsys, "fit", "--config=config.yaml", option)
    assert not (folder / "outputs").exists()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("experiment: été\n".encode("latin-1"), "other.yaml is not a text in UTF-8"),
        (bytes(range(256)), "other.yaml is not"),
        (b"- 1\n- 2\n", "other.yaml"),
        (b"data: {root: [\n", "other.yaml is not valid YAML"),
        (b"data:\n\troot: x\n", "other.yaml is not valid YAML"),
        (b"a: &a [*a]\n", "stand for more than"),
        (BOMB.encode(), "stand for more than"),
    ],
    ids=["Latin-1", "binary", "list", "syntax", "tab", "recursive", "bomb"],
)
def test_configuration_files(folder, capsys, content, message):
    (folder / "other.yaml").write_bytes(content)
    for command in ("fit", "phantom"):
        options = ["--config=config.yaml"] if command == "fit" else []
        found = sentence_of(capsys, command, *options, "--config", "other.yaml")
        assert message in found or message == "other.yaml"
    assert not (folder / "outputs").exists()


def test_byte_order_mark_is_ignored(folder):
    (folder / "other.yaml").write_bytes(b"\xef\xbb\xbfexperiment: marked\n")
    main(["fit", "--config=config.yaml", "--config=other.yaml", "--trainer.fast_dev_run=true"])


def test_patient_table_in_another_encoding(folder, capsys):
    (folder / "patients.csv").write_bytes("case,patient\np0,a\n".encode("utf-16"))
    found = sentence_of(
        capsys, "fit", "--config=config.yaml", "--data.patient_pattern=null", "--data.patient_table=patients.csv"
    )
    assert "patients.csv (data.patient_table) cannot be read" in found
