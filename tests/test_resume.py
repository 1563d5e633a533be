"""A resumed run equals the run that was not interrupted: weights, states and logged rows."""

import shutil

import numpy as np
import pytest
import torch
import yaml
from pytorch_lightning.callbacks import Checkpoint

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


class EveryStep(Checkpoint):
    """Saves a checkpoint after every batch, also between two steps of the optimiser."""

    def on_train_batch_end(self, trainer, *_):
        trainer.save_checkpoint(f"{trainer.default_root_dir}/saved/step{trainer.fit_loop.total_batch_idx + 1:02d}.ckpt")


@pytest.fixture
def checkpoints(tmp_path):
    """Return a configuration that saves checkpoints after every batch, and elsewhere after validations and epochs."""

    def callback(filename, **options):
        return {
            "class_path": "pytorch_lightning.callbacks.ModelCheckpoint",
            "init_args": {"dirpath": str(tmp_path / "saved"), "filename": filename, "save_top_k": -1, **options},
        }

    callbacks = [
        {"class_path": f"{__name__}.EveryStep"},
        callback("{epoch}", every_n_epochs=1, save_on_train_epoch_end=True),
        callback("validated{step}", every_n_epochs=1, save_on_train_epoch_end=False, monitor="val/loss"),
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
def test_resumed_run_equals_the_uninterrupted_one(muscle_arguments, run_folder, no_pictures, checkpoints, change):
    arguments = [*muscle_arguments, checkpoints, *SMALL, *change]
    assert differences(arguments, run_folder, ["step02", "epoch=0", "validated*"]) == []


@pytest.mark.drill
@pytest.mark.parametrize(
    "change",
    [
        ["--trainer.val_check_interval=0.5", "--data.num_workers=2"],
        ["--trainer.check_val_every_n_epoch=2", "--data.num_workers=2"],
        ["--trainer.val_check_interval=5", "--trainer.check_val_every_n_epoch=null"],
        ["--trainer.accumulate_grad_batches=3", "--checkpoint.save_top_k=2"],
        ["--trainer.max_steps=1000"],
        [*DEEP_ATLAS, "--trainer.val_check_interval=0.5"],
        [*DEEP_ATLAS, "--trainer.accumulate_grad_batches=2"],
    ],
    ids=["half_epochs", "two_epochs", "steps", "accumulated", "maximum", "deep_atlas", "deep_atlas_accumulated"],
)
def test_a_run_can_be_killed_after_any_step(muscle_arguments, run_folder, no_pictures, checkpoints, change):
    arguments = [*muscle_arguments, checkpoints, *SMALL, "--data.batch_size=1", *change]
    assert differences(arguments, run_folder, ["*"]) == []


def test_a_moved_run_keeps_its_best_checkpoint(muscle_arguments, run_folder, no_pictures):
    main(["fit", *muscle_arguments, *SMALL, "--trainer.max_epochs=2"])
    last = read_last(run_folder)
    (state,) = (value for value in last["callbacks"].values() if value.get("monitor") == "val/dice/mean")
    state["best_model_score"] = state["kth_value"] = torch.tensor(0.999)  # no later epoch is better
    state["best_k_models"] = {state["best_model_path"]: state["best_model_score"]}
    torch.save(last, run_folder / "checkpoints" / "last.ckpt")
    outputs = run_folder.parent.parent
    moved = outputs.rename(outputs.with_name("moved"))
    folder = moved / run_folder.relative_to(outputs)
    best = (folder / "checkpoints" / "best.ckpt").read_bytes()
    main(["fit", *muscle_arguments, *SMALL, f"--output_dir={moved}", "--ckpt_path=auto"])
    assert best_scores(read_last(folder)) == pytest.approx([0.999])
    assert (folder / "checkpoints" / "best.ckpt").read_bytes() == best
    assert not run_folder.exists()


def test_a_requeued_job_continues_with_the_command_that_started_it(
    muscle_arguments, run_folder, no_pictures, monkeypatch
):
    command = ["fit", *muscle_arguments, *SMALL, "--overwrite=true"]
    main([*command, "--trainer.max_epochs=2"])
    first = timeless(run_folder)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    main([*command, "--trainer.max_epochs=3"])
    rows = timeless(run_folder)
    assert rows[: len(first)] == first
    assert [int(row["epoch"]) for row in rows if row.get("train/loss")] == [0, 1, 2]


def test_the_best_of_several_checkpoints_is_best(muscle_arguments, run_folder, no_pictures):
    options = ["--checkpoint.save_top_k=3", "--trainer.max_epochs=6", "--model.learning_rate=0.01"]
    main(["fit", *muscle_arguments, *SMALL, *options])
    scores = {
        int(row["epoch"]): float(row["val/dice/mean"]) for row in timeless(run_folder) if row.get("val/dice/mean")
    }
    ranking = sorted(scores, key=lambda epoch: scores[epoch], reverse=True)
    folder = run_folder / "checkpoints"
    assert torch.load(folder / "best.ckpt", weights_only=True)["epoch"] == ranking[0]
    assert {path.name for path in folder.iterdir()} == {
        "best.ckpt",
        "last.ckpt",
        *(f"best_epoch={epoch:04d}.ckpt" for epoch in ranking[:3]),
    }


def differences(arguments, run_folder, patterns):
    """Train, resume from every checkpoint with a matching name, and return what differs from the first run."""
    main(["fit", *arguments])
    original = run_folder.with_name("original")
    shutil.copytree(run_folder, original)
    expected, rows = read_last(run_folder), timeless(run_folder)
    folders = (run_folder / "saved", run_folder.parents[2] / "saved")
    files = {file for folder in folders for pattern in patterns for file in folder.glob(f"{pattern}.ckpt")}
    assert len(files) >= len(patterns)
    found = []
    for file in sorted(files):
        shutil.rmtree(run_folder)
        shutil.copytree(original, run_folder)
        main(["fit", *arguments, f"--ckpt_path={file}"])
        resumed = read_last(run_folder)
        weights = max(
            float((resumed["state_dict"][key].float() - value.float()).abs().max())
            for key, value in expected["state_dict"].items()
        )
        if weights > 1e-6:
            found.append((file.name, "weights", weights))
        for quantity in (learning_rate, best_scores):
            if quantity(resumed) != pytest.approx(quantity(expected), abs=1e-6):
                found.append((file.name, quantity.__name__, quantity(resumed), quantity(expected)))
        found += [(file.name, *difference) for difference in different_rows(rows, timeless(run_folder))]
    return found


def read_last(run_folder):
    return torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)


def learning_rate(checkpoint):
    return checkpoint["optimizer_states"][0]["param_groups"][0]["lr"]


def best_scores(checkpoint):
    states = [value for value in checkpoint["callbacks"].values() if value.get("monitor") == "val/dice/mean"]
    return [-1.0 if state["best_model_score"] is None else float(state["best_model_score"]) for state in states]


def different_rows(expected, rows):
    """Return the differences of logged values."""
    if len(expected) != len(rows):
        return [(f"{len(rows)} rows instead of {len(expected)}",)]
    return [
        (row["epoch"], key, row.get(key), value)
        for row, other in zip(rows, expected, strict=True)
        for key, value in other.items()
        if row.get(key) != value and not np.isclose(float(row.get(key) or "nan"), float(value or "nan"), atol=1e-6)
    ]
