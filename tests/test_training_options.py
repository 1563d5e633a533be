"""What a configuration switches on beside the network: for automatic and for manual optimisation alike."""

import math

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch.optim.optimizer import register_optimizer_step_post_hook

from cm_lightning.io import read_image
from cm_lightning.main import main
from cm_lightning.metrics.calibration import calibration_errors
from tests.test_main import metrics

SMALL = "--model.network_options={channels: [4, 8], strides: [2]}"
TASKS = {
    "segmentation": [],
    "atlas": [
        "--model=DeepAtlasTask",
        "--model.registration_steps=2",
        "--model.pretraining_epochs=1",
        "--model.registration_options={channels: [4, 8], strides: [2]}",
    ],
}


@pytest.fixture(params=TASKS)
def arguments(request, muscle_arguments, undrawn):
    """The front door on tiny phantoms, with a small network, for each way of optimising."""
    return [*muscle_arguments, *TASKS[request.param], SMALL, "--pictures.cases=0"]


@pytest.fixture
def largest_gradients():
    """Norm of the gradient at every optimiser step."""
    norms = []

    def note(optimizer, args, kwargs):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))))

    handle = register_optimizer_step_post_hook(note)
    yield norms
    handle.remove()


def checkpoint(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def test_gradients_are_clipped_and_accumulated(arguments, largest_gradients):
    main(["fit", *arguments, "--trainer.max_epochs=2"])
    plain = list(largest_gradients)
    largest_gradients.clear()
    # Lightning itself refuses both for manual optimisation.
    clipped = ["--trainer.gradient_clip_val=0.01", "--trainer.accumulate_grad_batches=3", "--overwrite=true"]
    main(["fit", *arguments, *clipped, "--trainer.max_epochs=2"])
    assert max(plain) > 0.02
    assert max(largest_gradients) < 0.0101
    assert len(largest_gradients) == len(plain) / 3


def test_half_precision_trains_with_float32_losses(arguments, run_folder):
    main(["fit", *arguments, "--trainer.precision=bf16-mixed", "--model.loss=diceCEconf", "--trainer.max_epochs=3"])
    losses = [float(row["train/loss"]) for row in metrics(run_folder) if row["train/loss"]]
    assert losses[-1] < losses[0]
    # Computed in bfloat16, a value would have seven digits of mantissa after its first.
    assert any(value != float(torch.tensor(value).bfloat16()) for value in losses)


def test_schedules_run_resume_and_stretch(arguments, run_folder):
    def rates():
        return [float(row["train/lr"]) for row in metrics(run_folder) if row["train/lr"]]

    words = [*arguments, "--model.schedule=cosine", "--model.warmup_epochs=1", "--trainer.max_epochs=4"]
    main(["fit", *words])
    whole = rates()
    assert whole[0] == pytest.approx(0.0005)
    assert whole[1] > whole[2] > whole[3] > 0
    # The same when stopped after two epochs of four, and when four were meant to be two.
    half = 2 * (9 if "--model=DeepAtlasTask" in arguments else 3)
    main(["fit", *words, "--overwrite=true", f"--trainer.max_steps={half}"])
    assert rates() == pytest.approx(whole[:2])
    main(["fit", *words, "--ckpt_path=last"])
    assert rates() == pytest.approx(whole)
    main(["fit", *words, "--overwrite=true", "--trainer.max_epochs=2"])
    main(["fit", *words, "--ckpt_path=last"])
    assert rates()[2:] == pytest.approx(whole[2:])


def test_plateau_follows_the_validation(arguments, run_folder):
    # At such a rate and with no moving statistics, nothing rises.
    still = ["--model.network_options={channels: [4, 8], strides: [2], norm: instance, dropout: 0.0}"]
    main(
        ["fit", *arguments, *still, "--model.schedule=plateau", "--model.learning_rate=1e-7", "--trainer.max_epochs=13"]
    )
    rates = [float(row["train/lr"]) for row in metrics(run_folder) if row["train/lr"]]
    assert rates == pytest.approx([1e-7] * 12 + [5e-8])


def test_average_of_weights_is_what_is_kept(arguments, run_folder):
    averaging = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.9"]
    main(["fit", *arguments, *averaging, "--trainer.max_epochs=2"])
    kept = checkpoint(run_folder)
    weights = [name for name, value in kept["state_dict"].items() if value.is_floating_point()]
    assert any(not torch.equal(kept["state_dict"][name], kept["current_model_state"][name]) for name in weights)
    main(["fit", *arguments, *averaging, "--trainer.max_epochs=3", "--ckpt_path=last"])
    assert [int(row["epoch"]) for row in metrics(run_folder) if row["train/lr"]] == [0, 1, 2]
    main(["test", *arguments, *averaging, "--ckpt_path=best"])
    assert (run_folder / "test_metrics.csv").is_file()


def test_early_stopping_and_its_checkpoints(arguments, run_folder):
    stopping = ["EarlyStopping", "monitor=val/dice/mean", "mode=max", "patience=2", "min_delta=1.1"]
    words = [f"--trainer.callbacks+={stopping[0]}", *(f"--trainer.callbacks.{word}" for word in stopping[1:])]
    main(["fit", *arguments, *words, "--trainer.max_epochs=30"])
    epochs = {int(row["epoch"]) for row in metrics(run_folder)}
    assert epochs == {0, 1, 2}  # nothing rises by 1.1: the first, and two of patience
    assert checkpoint(run_folder, "last")["epoch"] == 2
    dice = {int(row["epoch"]): float(row["val/dice/mean"]) for row in metrics(run_folder) if row["val/dice/mean"]}
    assert checkpoint(run_folder, "best")["epoch"] == max(dice, key=dice.get)


def test_fine_tuning_from_another_input_mode_and_loss(muscle_arguments, tmp_path, caplog, undrawn):
    small = [*muscle_arguments, SMALL, "--pictures.cases=0"]
    main(["fit", *small, "--experiment=first", "--model.input_mode=1ch"])
    path = tmp_path / "outputs" / "first" / "fold0" / "checkpoints" / "last.ckpt"
    tuned = [*small, "--experiment=second", f"--model.init_from={path}", "--model.loss=CEconf"]
    main(["fit", *tuned, "--model.learning_rate=1e-12", "--trainer.max_epochs=1"])
    assert "1 of 2 input channels loaded, the others set to 0" in caplog.text
    before = torch.load(path, weights_only=True)["state_dict"]
    after = checkpoint(tmp_path / "outputs" / "second" / "fold0")["state_dict"]
    for name, value in before.items():
        if value.ndim == 5:  # the kernels, of which one reads the new channel
            torch.testing.assert_close(after[name][:, : value.shape[1]], value)

    # A resumed or tested run has all its weights: what it began with may be gone.
    path.unlink()
    main(["fit", *tuned, "--trainer.max_epochs=2", "--ckpt_path=last"])
    main(["test", *tuned, "--ckpt_path=best"])
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*first.*model.init_from"):
        main(["fit", *tuned, "--overwrite=true"])


def test_confidence_head_predicts_without_a_solver(muscle_arguments, run_folder, undrawn):
    head = [*muscle_arguments, "--model.input_mode=1ch", "--model.confidence_head=1", "--model.learning_rate=0.005"]
    main(["fit", *head, "--trainer.max_epochs=12", "--pictures.cases=0"])
    errors = [float(row["val/confidence_error"]) for row in metrics(run_folder) if row["val/confidence_error"]]
    assert errors[-1] < min(0.1, 0.7 * errors[0])
    main(["test", *head, "--ckpt_path=last"])
    assert any(row.get("test/confidence_error") for row in metrics(run_folder))
    main(["predict", *head, "--ckpt_path=last", "--data.confidence_mode=none"])
    names = {path.name.split("_x1_")[1] for path in (run_folder / "predictions").iterdir()}
    assert "predicted_confidence.nii.gz" in names
    assert "confidence.nii.gz" not in names


def test_temperature_is_fitted_kept_and_changes_probabilities_alone(muscle_arguments, run_folder, muscle_set, undrawn):
    arguments = [*muscle_arguments, SMALL, "--pictures.cases=0"]
    words = [*arguments, "--model.temperature_scaling=true"]
    main(["fit", *words])
    fitted = checkpoint(run_folder)["temperature"]
    logged = [float(row["val/temperature"]) for row in metrics(run_folder) if row["val/temperature"]]
    assert logged[-1] == pytest.approx(fitted, rel=1e-6)
    kept = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=False)
    torch.save({**kept, "temperature": 2.5}, run_folder / "checkpoints" / "last.ckpt")

    main(["test", *words, "--ckpt_path=last"])
    rows = pd.read_csv(run_folder / "test_metrics.csv").set_index(["case", "class", "metric"])["value"]
    bins = pd.read_csv(run_folder / "test_calibration.csv")
    assert set(bins["calibration"]) == {"none", "temperature"}
    assert set(bins["fold"]) == {0}
    errors = calibration_errors(bins, ["calibration", "case", "class"])
    counts = bins.groupby(["calibration", "case", "class"])["count"].sum()
    assert set(counts) == {16 * 24 * 16}  # at file resolution, all insonified

    def predicted(*words):
        main(["predict", *arguments, "--ckpt_path=last", *words])
        files = sorted((run_folder / "predictions").glob("*.nii.gz"))
        return {path.name: np.asarray(nibabel.load(path).dataobj) for path in files}

    plain, scaled = predicted(), predicted("--model.temperature_scaling=true")
    for name, found in plain.items():
        if not name.endswith("_probabilities.nii.gz"):
            assert np.array_equal(found, scaled[name]) == (not name.endswith("_entropy.nii.gz"))
            continue
        expected = np.exp(np.log(found) / 2.5)
        np.testing.assert_allclose(scaled[name], expected / expected.sum(axis=-1, keepdims=True), atol=1e-5)
        # What test streams class by class is what predict writes.
        case = name.removesuffix("_probabilities.nii.gz")
        (file,) = muscle_set.glob(f"*/{case.removesuffix('_x1')}/masksX1.mha")
        label = read_image(file).array
        for index, (part, value) in enumerate(
            [("soleus", 100), ("gastrocnemius_medialis", 150), ("gastrocnemius_lateralis", 200)], start=1
        ):
            for done, probabilities in (("none", found), ("temperature", scaled[name])):
                brier = np.square(probabilities[..., index] - (label == value)).mean()
                assert errors.loc[(done, case, part), "brier"] == pytest.approx(brier, rel=1e-4)
            for metric in ("ece", "ace", "brier"):
                assert rows[case, part, metric] == pytest.approx(errors.loc[("none", case, part), metric])

    # A training that goes on without it has none, and what has none is refused.
    main(["fit", *arguments, "--trainer.max_epochs=3", "--ckpt_path=last"])
    assert checkpoint(run_folder)["temperature"] is None
    for command in ("test", "predict"):
        with pytest.raises(ValueError, match="needs the temperature of the checkpoint, but this checkpoint"):
            main([command, *words, "--ckpt_path=last"])


def test_mc_dropout_writes_maps_and_sampled_segmentations(muscle_arguments, run_folder, monkeypatch):
    monkeypatch.setattr("cm_lightning.callbacks.AugmentationPicture.on_train_start", lambda *_: None)
    with pytest.raises(ValueError, match="MC dropout needs a network with dropout"):
        main(["fit", *muscle_arguments, "--model.mc_dropout.samples=5", "--model.network_options={dropout: 0.0}"])
    assert not run_folder.is_dir()
    muscle_arguments = [*muscle_arguments, SMALL]
    main(["fit", *muscle_arguments, "--pictures.cases=0", "--uncertainty.samples=3"])
    assert len(list((run_folder / "pictures").glob("uncertainty_epoch*.png"))) == 1
    assert "mc/entropy/mean" in pd.read_csv(run_folder / "metrics.csv").columns

    def maps(*arguments):
        main(["predict", *muscle_arguments, "--ckpt_path=last", *arguments])
        case = sorted((run_folder / "predictions").glob("*_entropy.nii.gz"))[0].name.removesuffix("_entropy.nii.gz")
        files = (run_folder / "predictions").glob(f"{case}_*.nii.gz")
        return {path.name[len(case) + 1 : -7]: nibabel.load(path) for path in files}

    plain = {name: np.asarray(image.dataobj) for name, image in maps().items()}
    assert "votes" not in plain
    # Chosen anew, whatever the fit had.
    found = maps("--model.mc_dropout={samples: 6, segmentations: 2}")
    five = {name: np.asarray(image.dataobj) for name, image in found.items()}
    assert not np.array_equal(plain["entropy"], five["entropy"])
    np.testing.assert_allclose(five["mutual_information"], five["entropy"] - five["expected_entropy"], atol=1e-6)
    np.testing.assert_allclose(five["votes"].sum(axis=-1), 6, rtol=1e-6)
    assert set(np.unique(five["sample01"])) <= {0, 100, 150, 200}
    assert not np.array_equal(five["sample01"], five["sample02"])
    assert float(found["entropy"].header["cal_max"]) == pytest.approx(math.log(4))
    assert np.array_equal(found["entropy"].affine, found["sample01"].affine)
    plausibility = pd.read_csv(next((run_folder / "predictions").glob("*_samples.csv")))["plausibility"]
    assert len(plausibility) == 2
    assert plausibility.is_monotonic_decreasing
    again = maps("--model.mc_dropout={samples: 6, batch_size: 4}")
    np.testing.assert_allclose(np.asarray(again["entropy"].dataobj), five["entropy"], atol=1e-5)


def test_patch_training_is_sampled_whole_or_in_windows(muscle_arguments, run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("cm_lightning.callbacks.AugmentationPicture.on_train_start", lambda *_: None)
    patches = [*muscle_arguments, SMALL, "--data.spatial_size=null", "--data.patch_size=[16,16,16]"]
    main(["fit", *patches, "--pictures.cases=0", "--uncertainty.samples=2"])
    assert len(list((run_folder / "pictures").glob("uncertainty_epoch*.png"))) == 1
    predict = ["predict", *patches, "--ckpt_path=last"]
    entropies = []
    for inference in ("whole", "windows"):
        settings, folder = f"{{samples: 3, inference: {inference}}}", tmp_path / inference
        main([*predict, f"--model.mc_dropout={settings}", f"--prediction.folder={folder}"])
        path = sorted(folder.glob("*_entropy.nii.gz"))[0]
        entropies.append(np.asarray(nibabel.load(path).dataobj))
    assert entropies[0].shape == entropies[1].shape
    assert not np.allclose(*entropies)


def test_optimiser_and_schedule_come_from_the_configuration(muscle_arguments, run_folder, undrawn, capsys):
    chosen = [
        "--model.optimizer=torch.optim.SGD",
        "--model.optimizer.lr=0.01",
        "--model.optimizer.momentum=0.5",
        "--model.lr_scheduler=torch.optim.lr_scheduler.StepLR",
        "--model.lr_scheduler.step_size=1",
    ]
    main(["fit", *muscle_arguments, *chosen])
    rates = [float(row["train/lr"]) for row in metrics(run_folder) if row["train/lr"]]
    np.testing.assert_allclose(rates, [0.01, 0.001], rtol=1e-5)
    checkpoint = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["momentum"] == 0.5
    # Resumed, tested, and taken from its stored settings.
    settings = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert settings["model"]["init_args"]["optimizer"]["class_path"] == "torch.optim.SGD"
    main(["fit", f"--config={run_folder / 'config.yaml'}", "--trainer.max_epochs=3", "--ckpt_path=last"])
    main(["test", f"--config={run_folder / 'config.yaml'}", "--ckpt_path=best"])
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    assert "pairs_per_case" not in capsys.readouterr().out
