"""Training options of a configuration, with automatic and with manual optimisation."""

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


@pytest.fixture(params=["segmentation", pytest.param("atlas", marks=pytest.mark.slow)])
def arguments(request, muscle_arguments, no_pictures):
    """Return the default configuration on small phantoms, with a small network, for each type of optimisation."""
    return [*muscle_arguments, *TASKS[request.param], SMALL, "--pictures.cases=0"]


@pytest.fixture
def gradient_norms():
    """Record the norm of the gradient at every optimiser step."""
    norms = []

    def record(optimizer, args, kwargs):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))))

    handle = register_optimizer_step_post_hook(record)
    yield norms
    handle.remove()


def checkpoint(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def test_gradients_are_clipped_and_accumulated(arguments, gradient_norms):
    main(["fit", *arguments, "--trainer.max_epochs=2"])
    unclipped = list(gradient_norms)
    gradient_norms.clear()
    # Lightning itself supports neither of them with manual optimisation.
    options = ["--trainer.gradient_clip_val=0.01", "--trainer.accumulate_grad_batches=3", "--overwrite=true"]
    main(["fit", *arguments, *options, "--trainer.max_epochs=2"])
    assert max(unclipped) > 0.02
    assert max(gradient_norms) < 0.0101
    assert len(gradient_norms) == len(unclipped) / 3


def test_losses_are_in_float32_when_training_in_half_precision(arguments, run_folder):
    main(["fit", *arguments, "--trainer.precision=bf16-mixed", "--model.loss=diceCEconf", "--trainer.max_epochs=3"])
    losses = [float(row["train/loss"]) for row in metrics(run_folder) if row["train/loss"]]
    assert losses[-1] < losses[0]
    # Losses computed in bfloat16 would all be representable in bfloat16, with a mantissa of seven bits.
    assert any(value != float(torch.tensor(value).bfloat16()) for value in losses)


def test_cosine_schedule_is_resumed_and_extended(arguments, run_folder):
    def rates():
        return [float(row["train/lr"]) for row in metrics(run_folder) if row["train/lr"]]

    options = [*arguments, "--model.schedule=cosine", "--model.warmup_epochs=1", "--trainer.max_epochs=4"]
    main(["fit", *options])
    uninterrupted = rates()
    assert uninterrupted[0] == pytest.approx(0.0005)
    assert uninterrupted[1] > uninterrupted[2] > uninterrupted[3] > 0
    # Rates are the same if training stops after two of four epochs, or if two epochs are extended to four.
    steps = 2 * (9 if "--model=DeepAtlasTask" in arguments else 3)
    main(["fit", *options, "--overwrite=true", f"--trainer.max_steps={steps}"])
    assert rates() == pytest.approx(uninterrupted[:2])
    main(["fit", *options, "--ckpt_path=last"])
    assert rates() == pytest.approx(uninterrupted)
    main(["fit", *options, "--overwrite=true", "--trainer.max_epochs=2"])
    main(["fit", *options, "--ckpt_path=last"])
    assert rates()[2:] == pytest.approx(uninterrupted[2:])


def test_plateau_schedule_depends_on_validation(arguments, run_folder):
    # At this learning rate and without running statistics, the validation score does not increase.
    network = ["--model.network_options={channels: [4, 8], strides: [2], norm: instance, dropout: 0.0}"]
    plateau = ["--model.schedule=plateau", "--model.learning_rate=1e-7", "--trainer.max_epochs=13"]
    main(["fit", *arguments, *network, *plateau])
    rates = [float(row["train/lr"]) for row in metrics(run_folder) if row["train/lr"]]
    assert rates == pytest.approx([1e-7] * 12 + [5e-8])


def test_checkpoints_contain_the_average_of_the_weights(arguments, run_folder):
    averaging = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.9"]
    main(["fit", *arguments, *averaging, "--trainer.max_epochs=2"])
    saved = checkpoint(run_folder)
    weights = [name for name, value in saved["state_dict"].items() if value.is_floating_point()]
    assert any(not torch.equal(saved["state_dict"][name], saved["current_model_state"][name]) for name in weights)
    main(["fit", *arguments, *averaging, "--trainer.max_epochs=3", "--ckpt_path=last"])
    assert [int(row["epoch"]) for row in metrics(run_folder) if row["train/lr"]] == [0, 1, 2]
    main(["test", *arguments, *averaging, "--ckpt_path=best"])
    assert (run_folder / "test_metrics.csv").is_file()


def test_early_stopping_and_its_checkpoints(arguments, run_folder):
    options = ["monitor=val/dice/mean", "mode=max", "patience=2", "min_delta=1.1"]
    stopping = ["--trainer.callbacks+=EarlyStopping", *(f"--trainer.callbacks.{option}" for option in options)]
    main(["fit", *arguments, *stopping, "--trainer.max_epochs=30"])
    epochs = {int(row["epoch"]) for row in metrics(run_folder)}
    assert epochs == {0, 1, 2}  # Dice cannot increase by 1.1, so training stops after the patience of two epochs
    assert checkpoint(run_folder, "last")["epoch"] == 2
    dice = {int(row["epoch"]): float(row["val/dice/mean"]) for row in metrics(run_folder) if row["val/dice/mean"]}
    assert checkpoint(run_folder, "best")["epoch"] == max(dice, key=dice.get)


def test_fine_tuning_from_another_input_mode_and_loss(muscle_arguments, tmp_path, caplog, no_pictures):
    small = [*muscle_arguments, SMALL, "--pictures.cases=0"]
    main(["fit", *small, "--experiment=first", "--model.input_mode=1ch"])
    path = tmp_path / "outputs" / "first" / "fold0" / "checkpoints" / "last.ckpt"
    fine_tuning = [*small, "--experiment=second", f"--model.init_from={path}", "--model.loss=CEconf"]
    main(["fit", *fine_tuning, "--model.learning_rate=1e-12", "--trainer.max_epochs=1"])
    assert "1 of 2 input channels loaded, the others set to 0" in caplog.text
    before = torch.load(path, weights_only=True)["state_dict"]
    after = checkpoint(tmp_path / "outputs" / "second" / "fold0")["state_dict"]
    for name, value in before.items():
        if value.ndim == 5:  # kernels, one of them with an additional input channel
            torch.testing.assert_close(after[name][:, : value.shape[1]], value)

    # Resuming and testing load all weights from the checkpoints of the run, so that the initial weights may be deleted.
    path.unlink()
    main(["fit", *fine_tuning, "--trainer.max_epochs=2", "--ckpt_path=last"])
    main(["test", *fine_tuning, "--ckpt_path=best"])
    with pytest.raises(FileNotFoundError, match=r"The checkpoint .*first.*model.init_from. does not exist"):
        main(["fit", *fine_tuning, "--overwrite=true"])


def test_confidence_head_predicts_maps_without_the_solver(muscle_arguments, run_folder, no_pictures):
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


def test_temperature_is_fitted_and_changes_only_probabilities(muscle_arguments, run_folder, muscle_set, no_pictures):
    arguments = [*muscle_arguments, SMALL, "--pictures.cases=0"]
    scaling = [*arguments, "--model.temperature_scaling=true"]
    main(["fit", *scaling])
    fitted = checkpoint(run_folder)["temperature"]
    logged = [float(row["val/temperature"]) for row in metrics(run_folder) if row["val/temperature"]]
    assert logged[-1] == pytest.approx(fitted, rel=1e-6)
    saved = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=False)
    torch.save({**saved, "temperature": 2.5}, run_folder / "checkpoints" / "last.ckpt")

    main(["test", *scaling, "--ckpt_path=last"])
    rows = pd.read_csv(run_folder / "test_metrics.csv").set_index(["case", "class", "metric"])["value"]
    bins = pd.read_csv(run_folder / "test_calibration.csv")
    assert set(bins["calibration"]) == {"none", "temperature"}
    assert set(bins["fold"]) == {0}
    errors = calibration_errors(bins, ["calibration", "case", "class"])
    counts = bins.groupby(["calibration", "case", "class"])["count"].sum()
    assert set(counts) == {16 * 24 * 16}  # at the resolution of the files; all voxels are insonified

    def predict(*options):
        main(["predict", *arguments, "--ckpt_path=last", *options])
        files = sorted((run_folder / "predictions").glob("*.nii.gz"))
        return {path.name: np.asarray(nibabel.load(path).dataobj) for path in files}

    unscaled, scaled = predict(), predict("--model.temperature_scaling=true")
    for name, values in unscaled.items():
        if not name.endswith("_probabilities.nii.gz"):
            assert np.array_equal(values, scaled[name]) == (not name.endswith("_entropy.nii.gz"))
            continue
        expected = np.exp(np.log(values) / 2.5)
        np.testing.assert_allclose(scaled[name], expected / expected.sum(axis=-1, keepdims=True), atol=1e-5)
        # The metrics of test, computed class by class, agree with the probabilities that predict writes.
        case = name.removesuffix("_probabilities.nii.gz")
        (file,) = muscle_set.glob(f"*/{case.removesuffix('_x1')}/masksX1.mha")
        label = read_image(file).array
        for index, (class_name, value) in enumerate(
            [("soleus", 100), ("gastrocnemius_medialis", 150), ("gastrocnemius_lateralis", 200)], start=1
        ):
            for calibration, probabilities in (("none", values), ("temperature", scaled[name])):
                brier = np.square(probabilities[..., index] - (label == value)).mean()
                assert errors.loc[(calibration, case, class_name), "brier"] == pytest.approx(brier, rel=1e-4)
            for metric in ("ece", "ace", "brier"):
                assert rows[case, class_name, metric] == pytest.approx(errors.loc[("none", case, class_name), metric])

    # If training continues without temperature scaling, the checkpoint has no temperature, and scaling raises an error.
    main(["fit", *arguments, "--trainer.max_epochs=3", "--ckpt_path=last"])
    assert checkpoint(run_folder)["temperature"] is None
    for command in ("test", "predict"):
        with pytest.raises(ValueError, match="needs the temperature of the checkpoint, but this checkpoint"):
            main([command, *scaling, "--ckpt_path=last"])


def test_mc_dropout_writes_maps_and_sampled_segmentations(muscle_arguments, run_folder, monkeypatch):
    monkeypatch.setattr("cm_lightning.callbacks.AugmentationPicture.on_train_start", lambda *_: None)
    with pytest.raises(ValueError, match="MC dropout needs a network with dropout"):
        main(["fit", *muscle_arguments, "--model.mc_dropout.samples=5", "--model.network_options={dropout: 0.0}"])
    assert not run_folder.is_dir()
    muscle_arguments = [*muscle_arguments, SMALL]
    main(["fit", *muscle_arguments, "--pictures.cases=0", "--uncertainty.samples=3"])
    assert len(list((run_folder / "pictures").glob("uncertainty_epoch*.png"))) == 1
    assert "mc/entropy/mean" in pd.read_csv(run_folder / "metrics.csv").columns

    def read(folder):
        case = sorted(folder.glob("*_entropy.nii.gz"))[0].name.removesuffix("_entropy.nii.gz")
        return {path.name[len(case) + 1 : -7]: nibabel.load(path) for path in folder.glob(f"{case}_*.nii.gz")}

    def predict(*options):
        main(["predict", *muscle_arguments, "--ckpt_path=last", *options])
        return read(run_folder / "predictions" / "mc_dropout")

    main(["predict", *muscle_arguments, "--ckpt_path=last"])
    deterministic = {name: np.asarray(image.dataobj) for name, image in read(run_folder / "predictions").items()}
    assert "votes" not in deterministic
    # The options of MC dropout are those of predict, not those of fit.
    images = predict("--model.mc_dropout={samples: 6, segmentations: 2}")
    maps = {name: np.asarray(image.dataobj) for name, image in images.items()}
    assert not np.array_equal(deterministic["entropy"], maps["entropy"])
    for name, image in read(run_folder / "predictions").items():  # the plain prediction is still there
        np.testing.assert_array_equal(np.asarray(image.dataobj), deterministic[name])
    np.testing.assert_allclose(maps["mutual_information"], maps["entropy"] - maps["expected_entropy"], atol=1e-6)
    np.testing.assert_allclose(maps["votes"].sum(axis=-1), 6, rtol=1e-6)
    assert set(np.unique(maps["sample01"])) <= {0, 100, 150, 200}
    assert not np.array_equal(maps["sample01"], maps["sample02"])
    assert float(images["entropy"].header["cal_max"]) == pytest.approx(math.log(4))
    assert np.array_equal(images["entropy"].affine, images["sample01"].affine)
    plausibility = pd.read_csv(next((run_folder / "predictions" / "mc_dropout").glob("*_samples.csv")))["plausibility"]
    assert len(plausibility) == 2
    assert plausibility.is_monotonic_decreasing
    in_batches = predict("--model.mc_dropout={samples: 6, batch_size: 4}")
    np.testing.assert_allclose(np.asarray(in_batches["entropy"].dataobj), maps["entropy"], atol=1e-5)


def test_mc_dropout_after_patch_training_with_both_inference_modes(muscle_arguments, run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("cm_lightning.callbacks.AugmentationPicture.on_train_start", lambda *_: None)
    patches = [*muscle_arguments, SMALL, "--data.spatial_size=null", "--data.patch_size=[16,16,16]"]
    main(["fit", *patches, "--pictures.cases=0", "--uncertainty.samples=2"])
    assert len(list((run_folder / "pictures").glob("uncertainty_epoch*.png"))) == 1
    predict = ["predict", *patches, "--ckpt_path=last"]
    entropies = []
    for inference in ("whole", "windows"):
        settings, folder = f"{{samples: 3, inference: {inference}}}", tmp_path / inference
        main([*predict, f"--model.mc_dropout={settings}", f"--prediction.folder={folder}"])
        path = sorted((folder / "mc_dropout").glob("*_entropy.nii.gz"))[0]
        entropies.append(np.asarray(nibabel.load(path).dataobj))
    assert entropies[0].shape == entropies[1].shape
    assert not np.allclose(*entropies)


def test_optimiser_and_scheduler_can_be_configured(muscle_arguments, run_folder, no_pictures, capsys):
    options = [
        "--model.optimizer=torch.optim.SGD",
        "--model.optimizer.lr=0.01",
        "--model.optimizer.momentum=0.5",
        "--model.lr_scheduler=torch.optim.lr_scheduler.StepLR",
        "--model.lr_scheduler.step_size=1",
    ]
    main(["fit", *muscle_arguments, *options])
    rates = [float(row["train/lr"]) for row in metrics(run_folder) if row["train/lr"]]
    np.testing.assert_allclose(rates, [0.01, 0.001], rtol=1e-5)
    checkpoint = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["momentum"] == 0.5
    # The run can be resumed and tested with its stored configuration.
    settings = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert settings["model"]["init_args"]["optimizer"]["class_path"] == "torch.optim.SGD"
    main(["fit", f"--config={run_folder / 'config.yaml'}", "--trainer.max_epochs=3", "--ckpt_path=last"])
    main(["test", f"--config={run_folder / 'config.yaml'}", "--ckpt_path=best"])
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    assert "pairs_per_case" not in capsys.readouterr().out
