"""A resumed run equals the run that was not interrupted: weights, states and logged rows."""

import numpy as np
import pytest
import torch
import yaml

from cm_lightning.main import main
from tests.test_main import timeless

SMALL = [
    "--model.network_options={channels: [4, 8], strides: [2], dropout: 0.2}",
    "--pictures.cases=0",
    "--uncertainty.cases=0",
    "--data.batch_size=2",
    "--data.augmentation={gain: 3, speckle: 1, rotation: 8}",
    "--trainer.max_epochs=3",
]
DEEP_ATLAS = [
    *("--model=DeepAtlasTask", "--model.registration_steps=2", "--model.pretraining_epochs=1"),
    "--model.registration_options={channels: [4, 8], strides: [2]}",
    "--trainer.limit_train_batches=5",
]
PATCHES = ["--data.spatial_size=null", "--data.patch_size=[16,16,16]"]


@pytest.fixture
def checkpoints(tmp_path):
    """Return a configuration that saves a checkpoint every second step and after every epoch."""

    def callback(filename, **options):
        return {
            "class_path": "pytorch_lightning.callbacks.ModelCheckpoint",
            "init_args": {"dirpath": str(tmp_path / "saved"), "filename": filename, "save_top_k": -1, **options},
        }

    callbacks = [
        callback("{step}", every_n_train_steps=2),
        callback("{epoch}", every_n_epochs=1, save_on_train_epoch_end=True),
        callback("validated{epoch}", every_n_epochs=1, save_on_train_epoch_end=False, monitor="val/loss"),
    ]
    file = tmp_path / "callbacks.yaml"
    file.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    return f"--config={file}"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(["--model.schedule=plateau"], marks=pytest.mark.slow),
        pytest.param([*PATCHES, "--model.schedule=cosine"], marks=pytest.mark.slow),
        ["--data.confidence_mode=on_the_fly", "--data.num_workers=2"],
        pytest.param(DEEP_ATLAS, marks=pytest.mark.slow),
    ],
    ids=["plateau", "patches", "workers", "deep_atlas"],
)
def test_resumed_run_equals_the_uninterrupted_one(
    muscle_arguments, run_folder, tmp_path, no_pictures, checkpoints, change
):
    arguments = [*muscle_arguments, checkpoints, *SMALL, *change]
    main(["fit", *arguments])
    last = run_folder / "checkpoints" / "last.ckpt"
    expected, rows = torch.load(last, weights_only=True), timeless(run_folder)
    files = sorted((tmp_path / "saved").iterdir())
    assert len(files) > 6
    (tmp_path / "saved").rename(run_folder / "saved")  # checkpoints of this run
    differences = {}
    for name in ["step=2.ckpt", "epoch=0.ckpt", "validatedepoch=0.ckpt"]:
        main(["fit", *arguments, f"--ckpt_path={run_folder / 'saved' / name}"])
        resumed = torch.load(last, weights_only=True)
        difference = max(
            float((resumed["state_dict"][key].float() - value.float()).abs().max())
            for key, value in expected["state_dict"].items()
        )
        assert resumed["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(
            expected["optimizer_states"][0]["param_groups"][0]["lr"]
        )
        differences[name] = (difference, different_rows(rows, timeless(run_folder)))
    assert not [f"{name}: {found}" for name, found in differences.items() if found[0] > 1e-6 or found[1]]


def different_rows(expected, rows):
    """Return the differences of logged values."""
    if len(expected) != len(rows):
        return [f"{len(rows)} rows instead of {len(expected)}"]
    return [
        (row["epoch"], key, row.get(key), value)
        for row, other in zip(rows, expected, strict=True)
        for key, value in other.items()
        if row.get(key) != value and not np.isclose(float(row.get(key) or "nan"), float(value or "nan"), atol=1e-6)
    ]
