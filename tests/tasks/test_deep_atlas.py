"""DeepAtlas: gradients of both networks, alternation of steps, and quality of the registration."""

from contextlib import contextmanager

import pytest
import torch
from pytorch_lightning import Trainer, seed_everything
from torch.optim.optimizer import register_optimizer_step_post_hook

from cm_lightning.data import UltrasoundDataModule
from cm_lightning.tasks import DeepAtlasTask

CLASSES = {"soleus": 100, "gastrocnemius_medialis": 150, "gastrocnemius_lateralis": 200}
SIZE = [16, 16, 16]
SMALL = {"channels": (4, 8, 8), "strides": (2, 2), "dropout": 0.1, "norm": "batch"}


def make(**options):
    sizes = {"network_options": SMALL, "registration_options": {"channels": (8, 16, 16), "strides": (1, 2)}}
    return DeepAtlasTask(classes=CLASSES, spatial_dims=3, spatial_size=SIZE, **{**sizes, **options})


def pair(first_labelled, second_labelled, size=2):
    def batch(labelled):
        label = torch.randint(0, 4, (size, 1, *SIZE)) if labelled else torch.zeros(size, 1, *SIZE, dtype=torch.long)
        image, confidence = torch.rand(2, size, 1, *SIZE)
        return {
            "image": image,
            "confidence": confidence,
            "domain": torch.ones(size, 1, *SIZE, dtype=torch.bool),
            "label": label,
            "labelled": torch.tensor([labelled] * size),
            "case": [f"{labelled}{i}" for i in range(size)],
        }

    return batch(first_labelled), batch(second_labelled)


def has_gradient(network):
    return any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


@pytest.mark.parametrize("labelled", [(True, False), (False, True)])
@pytest.mark.parametrize("mode", ["1ch", "2ch"])
def test_anatomy_term_has_gradients_for_both_networks_if_one_label_is_missing(labelled, mode):
    torch.manual_seed(0)
    task = make(input_mode=mode)
    moving, fixed = pair(*labelled)
    task.registration_loss(moving, fixed).anatomy.backward()
    assert has_gradient(task.registration)
    assert not has_gradient(task.network)

    task.zero_grad()
    _, anatomy = task.segmentation_loss(moving, fixed)
    anatomy.backward()
    assert has_gradient(task.network)
    assert not has_gradient(task.registration)


def test_anatomy_term_has_gradients_only_for_the_registration_if_there_are_all_labels():
    task = make()
    moving, fixed = pair(True, True)
    task.registration_loss(moving, fixed).anatomy.backward()
    assert has_gradient(task.registration)
    supervised, anatomy = task.segmentation_loss(moving, fixed)
    assert not anatomy.requires_grad
    supervised.backward()
    assert has_gradient(task.network)


def test_supervised_loss_ignores_images_without_labels():
    task = make(loss="CEconf").eval()
    moving, fixed = pair(True, False)
    both, _ = task.segmentation_loss(moving, fixed)
    labelled_only = task.loss(task(task.network_input(moving)), moving)
    torch.testing.assert_close(both, labelled_only)


def test_anatomy_is_the_label_or_the_prediction():
    task = make().eval()
    moving, fixed = pair(True, False)
    one_hot, predicted = task.anatomy(moving), task.anatomy(fixed)
    assert torch.equal(one_hot.argmax(dim=1), moving["label"][:, 0])
    torch.testing.assert_close(predicted.sum(dim=1), torch.ones_like(predicted[:, 0]))
    assert predicted.max() < 1


def data_module(root, cache, pairs_per_case=9, **options):
    settings = {"spatial_size": SIZE, "split": "study", "cache_dir": cache, "batch_size": 2}
    data = UltrasoundDataModule(root, CLASSES, **{**settings, **options})
    data.pairs_per_case = pairs_per_case
    return data


@contextmanager
def recorded_steps(task):
    """Record for every optimiser step whether it trains the registration, and the norm of its gradient."""
    steps = []

    def record(optimizer, args, kwargs):
        parameters = optimizer.param_groups[0]["params"]
        norms = [torch.linalg.vector_norm(p.grad) for p in parameters if p.grad is not None]
        trains_registration = parameters[0] is next(task.registration.parameters())
        steps.append((trains_registration, float(torch.linalg.vector_norm(torch.stack(norms)))))

    handle = register_optimizer_step_post_hook(record)
    try:
        yield steps
    finally:
        handle.remove()


def fit(task, data, epochs, folder, **options):
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(task, datamodule=data)
    return trainer


def test_eight_registration_steps_per_segmentation_step_after_pretraining(muscle_set, tmp_path):
    seed_everything(0)
    task = make(pretraining_epochs=1, gradient_clip_val=1e-3)
    data = data_module(muscle_set, tmp_path, batch_size=1)
    with recorded_steps(task) as steps:
        fit(task, data, 2, tmp_path)
    cases = len(data.training_set)
    assert len(steps) == 2 * 9 * cases
    assert [registration for registration, _ in steps] == [False] * 9 * cases + ([True] * 8 + [False]) * cases
    assert max(norm for _, norm in steps) <= 1.001e-3


def test_accumulated_batches_make_one_step_of_one_network(muscle_set, tmp_path):
    task = make(pretraining_epochs=0, registration_steps=2, accumulate_grad_batches=4)
    data = data_module(muscle_set, tmp_path, batch_size=1, pairs_per_case=3)
    with recorded_steps(task) as steps:
        fit(task, data, 1, tmp_path)
    batches = 3 * len(data.training_set)
    assert len(steps) == -(-batches // 4)  # the remaining batches are also a step
    assert [registration for registration, _ in steps] == [(True, True, False)[i % 3] for i in range(len(steps))]


def test_alternation_continues_over_short_epochs(muscle_set, tmp_path):
    """If cycles started again in every epoch, short epochs would contain no step of the segmentation network."""
    task = make(pretraining_epochs=1, registration_steps=4, accumulate_grad_batches=8)
    data = data_module(muscle_set, tmp_path, batch_size=1, pairs_per_case=5)
    with recorded_steps(task) as steps:
        fit(task, data, 6, tmp_path)
    batches = 5 * len(data.training_set)
    assert batches / 8 < 5
    steps_per_epoch = -(-batches // 8)
    alternation = [registration for registration, _ in steps][steps_per_epoch:]
    assert alternation == [i % 5 < 4 for i in range(5 * steps_per_epoch)]


def test_only_one_network_changes_in_each_step(muscle_set, tmp_path):
    """Neither the weights nor the batch statistics of the other network change."""
    task = make(pretraining_epochs=2, registration_steps=1)
    data = data_module(muscle_set, tmp_path, pairs_per_case=2)
    before = {name: value.clone() for name, value in task.registration.state_dict().items()}
    fit(task, data, 1, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in task.registration.state_dict().items())

    task = make(pretraining_epochs=0, registration_steps=50)
    before = {name: value.clone() for name, value in task.network.state_dict().items()}
    fit(task, data, 1, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in task.network.state_dict().items())


@pytest.mark.slow
def test_registration_is_better_than_the_identity_with_a_quarter_of_the_labels(muscle_set, tmp_path):
    seed_everything(0)
    task = make(registration_options={}, network_options={}, pretraining_epochs=3, learning_rate=3e-3, input_mode="2ch")
    data = data_module(muscle_set, tmp_path, labelled_fraction=0.25)
    trainer = fit(task, data, 10, tmp_path)
    assert len(data.labelled_patients) == 2
    (results,) = trainer.test(task, datamodule=data, verbose=False)
    assert results["test/registration/dice"] > results["test/registration/identity_dice"] + 0.02
    assert results["test/registration/folding"] < 0.01
    assert trainer.callback_metrics["test/dice/mean"] > 0.5
