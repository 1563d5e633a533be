"""Post-processing and calibration in the checkpoints and predictions of all tasks."""

import torch

from cm_lightning.tasks import SegmentationTask

CLASSES = {"soleus": 100, "gastrocnemius": 150}


def make(**options):
    network = {"channels": [4, 8], "strides": [2]}
    return SegmentationTask(CLASSES, 2, spatial_size=[16, 16], network_options=network, **options)


def test_checkpoints_contain_post_processing_and_calibration():
    task, checkpoint = make(), {}
    task.on_save_checkpoint(checkpoint)
    assert checkpoint == {"largest_component_gain": None, "temperature": None}
    gain = {"soleus": 0.1, "gastrocnemius": -0.1}
    task.on_load_checkpoint({"largest_component_gain": gain, "temperature": 1.5})
    task.on_save_checkpoint(checkpoint)
    assert checkpoint == {"largest_component_gain": gain, "temperature": 1.5}
    assert task.largest_component.gain == gain
    assert task.temperature_scaling.temperature == 1.5


def test_checkpoints_of_earlier_versions_can_be_loaded():
    task = make(largest_component=True, temperature_scaling=True)
    task.on_load_checkpoint({"largest_component_gain": {"soleus": 1.0, "gastrocnemius": 1.0}, "temperature": 1.5})
    task.on_load_checkpoint({"state_dict": {}})
    assert task.largest_component.gain is None
    assert task.temperature_scaling.temperature is None


def test_post_processing_and_calibration_are_not_weights_or_hyperparameters():
    task, enabled = make(), make(largest_component=True, temperature_scaling=True)
    assert task.state_dict().keys() == enabled.state_dict().keys()
    assert {"largest_component", "temperature_scaling"}.isdisjoint(enabled.hparams)


def test_prediction_applies_post_processing_and_calibration():
    torch.manual_seed(0)
    batch = {
        "case": ["a"],
        "image": torch.rand(1, 1, 16, 16),
        "confidence": torch.rand(1, 1, 16, 16),
        "native_shape": torch.tensor([(24, 20)]),
    }
    plain, enabled = make().eval(), make(largest_component=True, temperature_scaling=True).eval()
    enabled.load_state_dict(plain.state_dict())
    enabled.on_load_checkpoint({"largest_component_gain": {"soleus": 1.0, "gastrocnemius": 0.0}, "temperature": 2.0})
    with torch.no_grad():
        before, after = (task.predict_step(batch, 0).whole() for task in (plain, enabled))
    expected = before["probabilities"].sqrt()
    torch.testing.assert_close(after["probabilities"], expected / expected.sum(dim=0))
    assert torch.equal(after["segmentation"][0], enabled.largest_component(before["segmentation"][0]))
    assert not torch.equal(after["segmentation"], before["segmentation"])
    assert torch.equal(after["confidence"], before["confidence"])
