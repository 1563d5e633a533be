"""Training of the network that finds the insonified region."""

import numpy as np
import pytest
import torch

from cm_lightning.confidence.domain.network import FEATURES, GRID, RegionNetwork, screen_features, store_network
from cm_lightning.data.screens import Screen
from cm_lightning.data.screens.pictures import Box, draw_region
from cm_lightning.main import main
from cm_lightning.tasks import region
from cm_lightning.tasks.region import region_loss, screen_sample


def test_samples_have_features_and_targets_at_the_same_cells(rng):
    drawn = draw_region(rng, (96, 192), Box(20, 80, 40, 150), "linear", "top")
    image = np.where(drawn.inside, rng.integers(60, 160, (96, 192)), 0).astype(np.uint8)
    sample = screen_sample(Screen(image, None, drawn)).float() / 255
    assert sample.shape == (FEATURES + 3, GRID, GRID)
    features, inside = sample[:FEATURES], sample[FEATURES]
    on_screen = features[-1] > 0.5
    assert on_screen[48:144].all()
    assert on_screen.sum() == 96 * 192
    # The screen fills the width of the grid, so that a cell is a pixel.
    np.testing.assert_array_equal(inside[48:144] > 0.5, drawn.inside)
    assert ((features[1] > 0.1) == (inside > 0.5)).float().mean() > 0.99
    assert features[3][(inside < 0.5) & on_screen].mean() > 0.95  # pixels equal their neighbours in the surroundings
    assert features[3][inside > 0.5].mean() < 0.1


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("side", ["top", "bottom", "left", "right"])
def test_mirrored_samples_are_those_of_mirrored_screens(side, axis):
    """Beams are counted from the left, or from the top if the probe is at the left or right."""
    opposite = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}
    changes_side = (axis == -2) == (side in ("top", "bottom"))

    def sample(box, side):
        region = draw_region(np.random.default_rng(0), (GRID, GRID), box, "linear", side, fill=True)
        return screen_sample(Screen(np.zeros((GRID, GRID), np.uint8), None, region))[None].float() / 255

    mirrored_box = Box(40, 162, 20, 120) if axis == -2 else Box(30, 152, 72, 172)
    mirrored = region._mirror(sample(Box(30, 152, 20, 120), side), axis)[0, FEATURES:]
    expected = sample(mirrored_box, opposite[side] if changes_side else side)[0, FEATURES:]
    np.testing.assert_allclose(mirrored * expected[0], expected * expected[0], atol=0.01)


def test_loss_is_smallest_for_the_true_region():
    target = torch.zeros(2, 3, 16, 16)
    target[:, 0, 4:12, 3:14] = 1
    target[:, 1] = torch.linspace(0, 1, 16)[:, None]
    on_screen = torch.ones(2, 1, 16, 16)
    right = torch.logit(target.clamp(1e-4, 1 - 1e-4))
    losses = [region_loss(logits, target, on_screen) for logits in (right, right.roll(2, -1), -right)]
    assert losses[0] < 0.01
    assert losses[0] < losses[1] < losses[2]


def test_network_is_trained_scored_and_stored_by_the_command(tmp_path, monkeypatch, rng):
    from PIL import Image

    monkeypatch.setattr(region, "VALIDATION_SCREENS", 2)
    monkeypatch.setattr(region, "SCORED_SCREENS", 3)
    Image.fromarray(rng.integers(0, 200, (80, 90)).astype(np.uint8)).save(tmp_path / "tissue.png")
    output = tmp_path / "network.pt"
    main(["train_region", str(tmp_path), f"--output={output}", "--steps=2", "--batch_size=2", f"--logs={tmp_path}"])
    stored = torch.load(output, weights_only=True)
    network = RegionNetwork()
    network.load_state_dict({name: tensor.float() for name, tensor in stored["weights"].items()})
    assert len(stored["score"]) == 4
    assert np.isfinite(stored["score"]).all()
    features, placement = screen_features(torch.rand(30, 50) * 255)
    outputs = placement.cut(network.eval()(features[None]))
    assert outputs.shape[-2:] == (placement.rows, placement.columns)
    assert torch.isfinite(outputs).all()

    continued = tmp_path / "continued.pt"
    arguments = [f"--output={continued}", f"--initial={output}", "--steps=1", "--batch_size=2", f"--logs={tmp_path}"]
    main(["train_region", str(tmp_path), *arguments])
    last, first = (torch.load(file, weights_only=True)["weights"]["output.weight"] for file in (continued, output))
    assert (last.float() - first.float()).abs().max() < 0.01


def test_stored_weights_are_the_weights(tmp_path):
    network = RegionNetwork()
    store_network(tmp_path / "network.pt", network, [1.0, 2.0])
    stored = torch.load(tmp_path / "network.pt", weights_only=True)
    assert stored["score"] == [1.0, 2.0]
    for name, tensor in network.state_dict().items():
        assert torch.allclose(stored["weights"][name].float(), tensor.float(), atol=1e-3), name


def test_missing_textures_are_named(tmp_path):
    with pytest.raises(ValueError, match="contains no image with tissue"):
        main(["train_region", str(tmp_path), f"--output={tmp_path / 'network.pt'}"])
