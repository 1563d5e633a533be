"""Pretrained weights for other numbers of input channels and classes."""

import pytest
import torch

from cm_lightning.models import create_network, create_registration_network, load_pretrained
from tests.models.test_networks import NAMES, SMALL

SIZE = (16, 16, 32)


def save(network, path):
    """Write a checkpoint and return its path."""
    torch.save({"state_dict": network.state_dict()}, path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_an_additional_input_channel_does_not_change_the_prediction(name, tmp_path):
    before = create_network(name, 3, 1, 4, SIZE, **SMALL.get(name, {})).eval()
    after = create_network(name, 3, 2, 4, SIZE, **SMALL.get(name, {})).eval()
    notes = load_pretrained(after, save(before, tmp_path / "weights.ckpt"))
    image, confidence = torch.rand(1, 1, *SIZE), torch.rand(1, 1, *SIZE)
    torch.testing.assert_close(after(torch.cat([image, confidence], dim=1)), before(image))
    # Only input layers are listed, and their weights of the second channel receive gradients.
    assert notes
    assert all("1 of 2 input channels loaded, the others set to 0" in note for note in notes)
    after(torch.cat([image, confidence], dim=1)).square().sum().backward()
    input_weights = [p for n, p in after.named_parameters() if any(note.startswith(f"{n}:") for note in notes)]
    assert all(p.grad[:, 1].abs().sum() > 0 for p in input_weights)


@pytest.mark.parametrize("name", NAMES)
def test_output_layer_for_other_classes_keeps_its_random_weights(name, tmp_path):
    before = create_network(name, 3, 2, 4, SIZE, **SMALL.get(name, {}))
    after = create_network(name, 3, 2, 3, SIZE, **SMALL.get(name, {}))
    initial = {key: value.clone() for key, value in after.state_dict().items()}
    notes = load_pretrained(after, save(before, tmp_path / "weights.ckpt"))
    assert notes
    skipped = {note.split(":")[0] for note in notes}
    for key, value in after.state_dict().items():
        expected = initial[key] if key in skipped else before.state_dict()[key]
        assert torch.equal(value, expected), key
    assert all("in the checkpoint" in note and "shape" in note for note in notes)


def test_network_with_fewer_input_channels_loads_the_first_ones(tmp_path):
    before, after = create_network("UNet", 2, 2, 3), create_network("UNet", 2, 1, 3)
    notes = load_pretrained(after, save(before, tmp_path / "weights.ckpt"))
    assert ["1 of the 2 input channels of the checkpoint loaded" in note for note in notes] == [True]


def test_equal_networks_are_loaded_without_notes(tmp_path):
    before, after = create_network("UNet", 2, 2, 3), create_network("UNet", 2, 2, 3)
    assert load_pretrained(after, save(before, tmp_path / "weights.ckpt")) == []


def test_missing_files_and_other_architectures_raise_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing.ckpt \(model.init_from\) does not exist"):
        load_pretrained(create_network("UNet", 2, 1, 2), tmp_path / "nothing.ckpt")
    path = save(create_network("UNETR", 2, 1, 2, (16, 16), **SMALL["UNETR"]), tmp_path / "weights.ckpt")
    with pytest.raises(ValueError, match="contains no weights of this network"):
        load_pretrained(create_network("UNet", 2, 1, 2), path)


def test_registration_keeps_the_first_channel_of_each_image(tmp_path):
    before, after = create_registration_network(2, 1).eval(), create_registration_network(2, 2).eval()
    wrapped = [torch.nn.ModuleDict({"registration": network}) for network in (before, after)]
    notes = load_pretrained(wrapped[1], save(wrapped[0], tmp_path / "weights.ckpt"))
    assert ["2 of 4 input channels loaded" in note for note in notes] == [True]
    fixed, moving, maps = torch.rand(3, 1, 1, 16, 16)
    pair = torch.cat([fixed, maps, moving, maps], dim=1)
    torch.testing.assert_close(after(pair), before(torch.cat([fixed, moving], dim=1)))


def test_files_that_are_not_checkpoints_raise_errors(tmp_path):
    network = create_network("UNet", 2, 1, 2)
    (tmp_path / "text.ckpt").write_text("weights")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(ValueError, match=r"text.ckpt \(model.init_from\) is not a checkpoint"):
        load_pretrained(network, tmp_path / "text.ckpt")
    with pytest.raises(ValueError, match=r"list.ckpt \(model.init_from\) contains a list"):
        load_pretrained(network, tmp_path / "list.ckpt")
