"""Augmentation of intensities inside the domain, and of the geometry of image, map, label and domain."""

import pytest
import torch

from cm_lightning.data import Augmentation
from cm_lightning.errors import InputError

NONE = {"gain": 0.0, "time_gain": 0.0, "speckle": 0.0, "flip": 0.0, "rotation": 0.0, "scaling": 0.0, "elastic": 0.0}


@pytest.fixture(params=[(40, 32), (24, 20, 16)], ids=["2d", "3d"])
def batch(request) -> dict:
    torch.manual_seed(0)  # with rare seeds, the gain is so low that the image is black
    shape = (2, 1, *request.param)
    label = torch.zeros(shape, dtype=torch.uint8)
    label[:, :, 8:16, 4:10] = 1
    domain = torch.zeros(shape, dtype=torch.bool)
    domain[:, :, 4:-2, 2:-2] = True
    return {
        "image": 0.2 * domain + 0.5 * label,
        "confidence": label.float(),
        "label": label,
        "domain": domain,
        "spacing": torch.ones(2, len(request.param)),
    }


def test_zeros_change_nothing(batch):
    augmentation = Augmentation(**NONE)
    after = augmentation.geometry(augmentation.intensity(batch))
    for key, value in batch.items():
        assert torch.equal(after[key], value)


def test_gain_changes_only_the_domain(batch):
    after = Augmentation(**{**NONE, "gain": 6.0}).intensity(batch)["image"]
    change = after - batch["image"]
    for sample, domain in zip(change, batch["domain"], strict=True):
        inside = sample[domain]
        assert inside.std() < 1e-6
        assert inside.abs().max() > 0
        assert (sample[~domain] == 0).all()


def test_time_gain_depends_only_on_depth(batch):
    change = Augmentation(**{**NONE, "time_gain": 3.0}).intensity(batch)["image"] - batch["image"]
    rows = change[:, :, 4:-2, 2:-2].flatten(3)
    assert rows.std(dim=3).max() < 1e-6
    assert rows.mean(dim=3).std() > 0


def test_flip_is_lateral(batch):
    after = Augmentation(**{**NONE, "flip": 1.0}).geometry(batch)
    for key in ("label", "domain"):
        assert torch.equal(after[key], batch[key].flip(3))
    torch.testing.assert_close(after["image"], batch["image"].flip(3), atol=1e-5, rtol=0)


def test_label_and_map_are_transformed_equally(batch):
    torch.manual_seed(1)
    after = Augmentation(**{**NONE, "rotation": 20.0, "scaling": 0.2, "elastic": 0.02}).geometry(batch)
    label = after["label"].float()
    assert not torch.equal(after["label"], batch["label"])
    # Before the transform, the map equals the label. Afterwards, the thresholded map should equal the label.
    assert ((after["confidence"] > 0.5).float() - label).abs().mean() < 0.01
    assert set(after["label"].unique().tolist()) == {0, 1}
    assert after["label"].dtype == torch.uint8
    assert after["domain"].dtype == torch.bool


def test_rotation_of_anisotropic_pixels_preserves_shapes():
    # A disc in mm must stay a disc, although the pixels are three times as high as wide.
    depth, lateral = torch.meshgrid((torch.arange(60) - 29.5) * 3.0, torch.arange(180) - 89.5, indexing="ij")
    disc = ((depth**2 + lateral**2) < 55**2).to(torch.uint8)[None, None]
    batch = {"image": disc.float(), "label": disc, "spacing": torch.tensor([[3.0, 1.0]])}
    torch.manual_seed(0)
    after = Augmentation(**{**NONE, "rotation": 45.0}).geometry(batch)["label"]
    assert (after != disc).float().mean() < 0.01


def test_images_of_a_batch_differ_and_seeds_are_reproducible(batch):
    augmentation = Augmentation(**{**NONE, "rotation": 20.0, "gain": 3.0})

    def run() -> torch.Tensor:
        torch.manual_seed(3)
        return augmentation.geometry(augmentation.intensity(batch))["image"]

    first = run()
    assert torch.equal(first, run())
    assert not torch.allclose(first[0], first[1])


def test_invalid_values_raise_errors():
    with pytest.raises(ValueError, match="gain of the augmentation must be at least 0"):
        Augmentation(gain=-1)
    with pytest.raises(ValueError, match="flip must be at most 1"):
        Augmentation(flip=1.5)


@pytest.mark.parametrize("name", ["noise", "blur", "low_resolution", "contrast", "gamma"])
def test_quality_changes_only_images_inside_the_domain(batch, name):
    batch["image"] = torch.rand(batch["image"].shape)
    augmentation = Augmentation(**NONE, **{name: 1.0})
    torch.manual_seed(0)
    first, other = augmentation.intensity(batch)["image"], augmentation.intensity(batch)["image"]
    torch.manual_seed(0)
    assert torch.equal(augmentation.intensity(batch)["image"], first)
    assert type(first) is torch.Tensor
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first[~batch["domain"]], batch["image"][~batch["domain"]])
    inside = (first - batch["image"])[batch["domain"]]
    assert 0.01 < inside.abs().mean() < 0.3
    with pytest.raises(InputError, match=f"{name} of the augmentation is a probability and must be at most 1"):
        Augmentation(**{name: 1.5})


def test_blur_and_low_resolution_remove_detail_and_contrast_keeps_the_mean(batch):
    def after(name):
        return Augmentation(**NONE, **{name: 1.0}).intensity({**batch, "image": image})["image"][batch["domain"]]

    image = torch.rand(batch["image"].shape)
    before = image[batch["domain"]]
    assert after("blur").std() < 0.9 * before.std()
    assert after("low_resolution").std() < before.std()
    assert abs(after("contrast").mean() - before.mean()) < 0.02
