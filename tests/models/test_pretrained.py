"""Weights from a checkpoint of another input mode or number of classes."""

import pytest
import torch

from cm_lightning.models import create_network, create_registration_network, load_pretrained
from tests.models.test_networks import NAMES, SMALL

SIZE = (16, 16, 32)


def save(network, path):
    torch.save({"state_dict": network.state_dict()}, path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_first_prediction_is_unchanged_by_an_extra_input_channel(name, tmp_path):
    before = create_network(name, 3, 1, 4, SIZE, **SMALL.get(name, {})).eval()
    after = create_network(name, 3, 2, 4, SIZE, **SMALL.get(name, {})).eval()
    notes = load_pretrained(after, save(before, tmp_path / "weights.ckpt"))
    image, confidence = torch.rand(1, 1, *SIZE), torch.rand(1, 1, *SIZE)
    torch.testing.assert_close(after(torch.cat([image, confidence], dim=1)), before(image))
    # Only layers that read the input are named, and they can learn what the second channel is worth.
    assert notes
    assert all("1 of its 2 input channels loaded, the others start at zero" in note for note in notes)
    after(torch.cat([image, confidence], dim=1)).square().sum().backward()
    read = [p for n, p in after.named_parameters() if any(note.startswith(f"{n}:") for note in notes)]
    assert all(p.grad[:, 1].abs().sum() > 0 for p in read)


@pytest.mark.parametrize("name", NAMES)
def test_other_classes_leave_the_output_layer_at_its_start(name, tmp_path):
    before = create_network(name, 3, 2, 4, SIZE, **SMALL.get(name, {}))
    after = create_network(name, 3, 2, 3, SIZE, **SMALL.get(name, {}))
    start = {key: value.clone() for key, value in after.state_dict().items()}
    notes = load_pretrained(after, save(before, tmp_path / "weights.ckpt"))
    assert notes
    skipped = {note.split(":")[0] for note in notes}
    for key, value in after.state_dict().items():
        expected = start[key] if key in skipped else before.state_dict()[key]
        assert torch.equal(value, expected), key
    assert all("has shape" in note for note in notes)


def test_fewer_input_channels_keep_the_first(tmp_path):
    before, after = create_network("UNet", 2, 2, 3), create_network("UNet", 2, 1, 3)
    notes = load_pretrained(after, save(before, tmp_path / "weights.ckpt"))
    assert ["1 of the checkpoint's 2 input channels loaded" in note for note in notes] == [True]


def test_the_same_network_is_loaded_silently(tmp_path):
    before, after = create_network("UNet", 2, 2, 3), create_network("UNet", 2, 2, 3)
    assert load_pretrained(after, save(before, tmp_path / "weights.ckpt")) == []


def test_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*model.init_from"):
        load_pretrained(create_network("UNet", 2, 1, 2), tmp_path / "nothing.ckpt")
    path = save(create_network("UNETR", 2, 1, 2, (16, 16), **SMALL["UNETR"]), tmp_path / "weights.ckpt")
    with pytest.raises(ValueError, match="no weights by the names of this network"):
        load_pretrained(create_network("UNet", 2, 1, 2), path)


def test_registration_of_two_images_keeps_each_ones_first_channel(tmp_path):
    before, after = create_registration_network(2, 1).eval(), create_registration_network(2, 2).eval()
    wrapped = [torch.nn.ModuleDict({"registration": network}) for network in (before, after)]
    notes = load_pretrained(wrapped[1], save(wrapped[0], tmp_path / "weights.ckpt"))
    assert ["2 of its 4 input channels loaded" in note for note in notes] == [True]
    fixed, moving, maps = torch.rand(3, 1, 1, 16, 16)
    pair = torch.cat([fixed, maps, moving, maps], dim=1)
    torch.testing.assert_close(after(pair), before(torch.cat([fixed, moving], dim=1)))


def test_a_file_that_is_no_checkpoint_is_named(tmp_path):
    network = create_network("UNet", 2, 1, 2)
    (tmp_path / "text.ckpt").write_text("weights")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(ValueError, match=r"text.ckpt \(model.init_from\) is no checkpoint"):
        load_pretrained(network, tmp_path / "text.ckpt")
    with pytest.raises(ValueError, match=r"list.ckpt \(model.init_from\) holds a list"):
        load_pretrained(network, tmp_path / "list.ckpt")
