"""Segmentation task: invalid settings, fine-tuning and the confidence head."""

import pytest
import torch

from cm_lightning.data import UltrasoundDataModule
from cm_lightning.tasks import DeepAtlasTask, SegmentationTask
from cm_lightning.uncertainty import MCDropout

CLASSES = {"soleus": 100, "gastrocnemius": 150}
SIZE = [16, 16]


def make(**options):
    return SegmentationTask(CLASSES, 2, spatial_size=SIZE, **options)


def batch(size=2):
    label = torch.randint(0, 3, (size, 1, *SIZE))
    confidence = torch.linspace(1, 0, 16)[:, None].expand(size, 1, *SIZE).contiguous()
    domain = torch.ones(size, 1, *SIZE, dtype=torch.bool)
    return {
        "image": torch.rand(size, 1, *SIZE),
        "label": label,
        "confidence": confidence,
        "domain": domain,
        "case": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_mode": "3ch"}, "Unknown input mode '3ch'; expected one of 1ch, 2ch"),
        ({"loss": "focal"}, "Unknown loss 'focal'"),
        (
            {"mc_dropout": MCDropout(5), "network_options": {"dropout": 0.0}},
            "MC dropout needs a network with dropout",
        ),
        ({"confidence_head": 1.0}, "confidence_head must be 0 for the input mode 2ch"),
        ({"confidence_head": -1.0, "input_mode": "1ch"}, "must be at least 0"),
        ({"confidence_scale": 0.0}, "confidence_scale must be above 0, found 0.0"),
        ({"schedule": "cosin"}, "Unknown schedule 'cosin'; expected one of constant, cosine"),
        ({"target": "soft"}, "soft target needs the loss CEconf or diceCEconf"),
        ({"schedule": "plateau", "warmup_epochs": 3}, "must be 0 with the schedule 'plateau'; found 3"),
        ({"network": "UNETR", "spatial_size": [24, 16]}, r"found \[24, 16\]; \[32, 16\] would be valid"),
    ],
)
def test_invalid_settings_raise_errors(options, message):
    with pytest.raises(ValueError, match=message):
        SegmentationTask(CLASSES, 2, **{"spatial_size": SIZE, **options})


@pytest.mark.parametrize(
    ("options", "stage", "required"),
    [
        ({"input_mode": "2ch"}, "fit", True),
        ({"input_mode": "2ch"}, "predict", True),
        ({"input_mode": "1ch"}, "fit", False),
        ({"input_mode": "1ch", "loss": "CEconf"}, "fit", True),
        ({"input_mode": "1ch", "loss": "CEconf"}, "predict", False),
        ({"input_mode": "1ch", "confidence_head": 1.0}, "fit", True),
        ({"input_mode": "1ch", "confidence_head": 1.0}, "test", False),
    ],
)
def test_confidence_maps_are_required_only_if_they_are_needed(tmp_path, options, stage, required):
    data = UltrasoundDataModule(
        tmp_path, CLASSES, spatial_dims=2, spatial_size=SIZE, axes="depth lateral", confidence_mode="none"
    )
    if required:
        with pytest.raises(ValueError, match=f"{stage} needs confidence maps .* data.confidence_mode is none"):
            make(**options).check_data(data, stage)
    else:
        make(**options).check_data(data, stage)


def test_data_with_other_classes_dimensions_or_sizes_raise_errors(tmp_path):
    def data(classes=CLASSES, dims=2, size=SIZE, axes="depth lateral"):
        return UltrasoundDataModule(tmp_path, classes, spatial_dims=dims, spatial_size=size, axes=axes)

    with pytest.raises(ValueError, match=r"created for the classes soleus, gastrocnemius, but data.classes are nerve"):
        make().check_data(data({"nerve": 1}), "test")
    with pytest.raises(ValueError, match=r"created for 2 dimensions, but data.spatial_dims is 3"):
        make().check_data(data(dims=3, size=[16, 16, 16], axes="depth lateral elevation"), "test")
    for network in ("UNet", "UNETR"):
        with pytest.raises(ValueError, match=r"data.spatial_size \[16, 16\], but data.spatial_size is \[32, 32\]"):
            make(network=network).check_data(data(size=[32, 32]), "test")


def test_atlas_needs_pairs_of_whole_images(tmp_path):
    task = DeepAtlasTask(classes=CLASSES, spatial_dims=2, spatial_size=SIZE)
    settings = {"spatial_dims": 2, "axes": "depth lateral"}
    data = UltrasoundDataModule(tmp_path, CLASSES, spatial_size=SIZE, **settings)
    with pytest.raises(ValueError, match=r"trained on pairs, but pairs_per_case of the data module is 0; expected 9"):
        task.check_data(data, "fit")
    patches = UltrasoundDataModule(tmp_path, CLASSES, patch_size=SIZE, **settings)
    with pytest.raises(ValueError, match=r"data.spatial_size \[16, 16\], but data.spatial_size is None"):
        task.check_data(patches, "fit")
    with pytest.raises(ValueError, match="similarity_window must be odd"):
        DeepAtlasTask(classes=CLASSES, spatial_dims=2, similarity_window=4)


@pytest.mark.parametrize("network", ["UNet", "AttentionUnet", "DynUNet", "UNETR"])
def test_confidence_head_adds_a_channel_and_a_loss(network):
    torch.manual_seed(0)
    options = {"UNETR": {"hidden_size": 24, "mlp_dim": 24, "num_heads": 2, "feature_size": 8}}.get(network, {})
    task = make(network=network, input_mode="1ch", confidence_head=2.0, loss="CE", network_options=options)
    data = batch()
    outputs = task(task.network_input(data))
    assert outputs.shape == (2, 4, *SIZE)
    assert task.class_logits(outputs).shape == (2, 3, *SIZE)
    plain = make(network=network, input_mode="1ch", loss="CE", network_options=options)
    head = torch.nn.functional.binary_cross_entropy_with_logits(outputs[:, 3:], data["confidence"])
    torch.testing.assert_close(task.loss(outputs, data), plain.loss(outputs[:, :3], data) + 2 * head)

    # The confidence map outside the domain is ignored.
    data["domain"][:, :, 8:] = False
    changed = {**data, "confidence": torch.where(data["domain"], data["confidence"], 0.7)}
    torch.testing.assert_close(task.loss(outputs, data), task.loss(outputs, changed))
    empty = {**data, "domain": torch.zeros_like(data["domain"])}
    torch.testing.assert_close(task.loss(outputs, empty), plain.loss(outputs[:, :3], data))


def test_coarse_levels_are_trained_with_half_of_the_weight_of_the_next_finer_one():
    torch.manual_seed(0)
    options = {"channels": [4, 8, 8, 8], "strides": [2, 2, 2], "deep_supervision": True, "dropout": 0.1}
    task = make(network="DynUNet", network_options=options, input_mode="1ch", loss="diceCE", confidence_head=0.5)
    data = batch()
    outputs = task(task.network_input(data))
    assert outputs.shape == (2, 3, 4, *SIZE)
    loss = task.loss(outputs, data)
    parts = [task.loss(outputs[:, level], data) for level in range(3)]
    torch.testing.assert_close(loss, (4 * parts[0] + 2 * parts[1] + parts[2]) / 7)
    loss.backward()
    assert all(weights.grad is not None for weights in task.network.parameters())
    # Only the finest level is used afterwards, also with active dropout.
    task.eval()
    assert task(task.network_input(data)).shape == (2, 4, *SIZE)
    with torch.inference_mode():
        assert task.sample(batch(1), MCDropout(samples=2)).entropy.shape == tuple(SIZE)


def test_fine_tuning_starts_from_a_checkpoint_that_is_not_a_hyperparameter(tmp_path):
    first = make(input_mode="1ch").eval()
    path = tmp_path / "first.ckpt"
    torch.save({"state_dict": first.state_dict()}, path)
    second = make(input_mode="2ch", loss="CEconf", init_from=path).eval()
    data = batch()
    torch.testing.assert_close(second(second.network_input(data)), first(first.network_input(data)))
    assert "init_from" not in second.hparams


def test_confidence_is_scaled_only_as_an_input():
    data = batch()
    plain, scaled = make(loss="CEconf"), make(loss="CEconf", confidence_scale=0.25)
    torch.testing.assert_close(scaled.network_input(data)[:, 1], 0.25 * plain.network_input(data)[:, 1])
    torch.testing.assert_close(scaled.network_input(data)[:, 0], plain.network_input(data)[:, 0])
    logits = torch.randn(2, 3, *data["label"].shape[2:])
    assert scaled.loss(logits, data) == plain.loss(logits, data)
