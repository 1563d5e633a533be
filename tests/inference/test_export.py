"""Exported networks, compared with their checkpoint, and their description."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from pytorch_lightning import Trainer

from cm_lightning.inference import load_task
from cm_lightning.inference.export import ExportedNetwork, export_network
from cm_lightning.io import write_nifti
from cm_lightning.main import main
from cm_lightning.tasks import DeepAtlasTask, SegmentationTask

SMALL = {"channels": [4, 8], "strides": [2]}
NETWORKS = {
    "UNet": (SegmentationTask, {"network_options": SMALL}),
    "AttentionUnet": (SegmentationTask, {"network": "AttentionUnet", "network_options": SMALL}),
    "DynUNet": (
        SegmentationTask,
        {"network": "DynUNet", "network_options": {"channels": [4, 8, 8], "strides": [2, 2]}},
    ),
    "UNETR": (
        SegmentationTask,
        {"network": "UNETR", "network_options": {"feature_size": 4, "hidden_size": 12, "mlp_dim": 24, "num_heads": 2}},
    ),
    "DeepAtlas": (DeepAtlasTask, {"network_options": SMALL}),
}
DATA = {
    "axes": "depth lateral",
    "domain": "whole",
    "confidence_mode": "native",
    "confidence_source": "solver",
    "solver": {"alpha": 0.5, "beta": 100.0, "gamma": 0.05},
}


def write_checkpoint(path, name, **sizes):
    task_class, options = NETWORKS[name]
    torch.manual_seed(0)
    task = task_class(classes={"nerve": 1, "vessel": 2}, spatial_dims=2, confidence_scale=0.5, **options, **sizes)
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_model_summary=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path, weights_only=True)
    checkpoint = torch.load(path, weights_only=True)
    torch.save({**checkpoint, "UltrasoundDataModule": {"settings": {**DATA, **sizes}}}, path)
    return path


@pytest.fixture
def image(tmp_path, rng):
    path = tmp_path / "image.nii.gz"
    write_nifti(path, rng.integers(0, 255, (40, 50), dtype=np.uint8), np.eye(4))
    return path


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "UNETR" else ()) for name in NETWORKS]
)
@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_exported_network_equals_the_checkpoint(name, suffix, tmp_path, image):
    checkpoint = write_checkpoint(tmp_path / "best.ckpt", name, spatial_size=[32, 32])
    output = tmp_path / "exported" / f"net.{suffix}"
    assert export_network(checkpoint, output, image) <= 1e-4
    assert {path.name for path in output.parent.iterdir()} == {output.name, "net.json"}
    description = json.loads(output.with_suffix(".json").read_text())
    assert description["classes"] == {"background": 0, "nerve": 1, "vessel": 2}
    assert description["input"]["channels"] == ["image", "confidence"]
    assert description["confidence"]["solver"]["beta"] == 100.0
    assert description["grid"]["size"] == [32, 32]

    # Other values, and a batch of another size if the description allows it.
    inputs = torch.rand(3 if description["input"]["shape"][0] == "any" else 1, 2, 32, 32)
    with torch.inference_mode():
        expected = ExportedNetwork(load_task(checkpoint).task)(inputs)
        task = load_task(checkpoint).task
        whole = task.class_logits(task({"inputs": inputs}["inputs"] * torch.tensor([1.0, 0.5]).reshape(1, 2, 1, 1)))
    torch.testing.assert_close(expected, whole)
    if suffix == "onnx":
        session = onnxruntime.InferenceSession(output)
        found = torch.from_numpy(session.run(["logits"], {"inputs": inputs.numpy()})[0])
    else:
        found = torch.export.load(output).module()(inputs)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_windows_have_the_size_of_a_patch(tmp_path, image):
    checkpoint = write_checkpoint(tmp_path / "best.ckpt", "UNet", patch_size=[32, 64])  # wider than the image
    export_network(checkpoint, tmp_path / "net.pt2", image)
    description = json.loads((tmp_path / "net.json").read_text())
    assert description["input"]["shape"][1:] == [2, 32, 64]
    assert description["grid"]["kind"] == "sliding window"


def test_image_of_the_run_is_used_by_default(trained, run_folder, tmp_path, capsys):
    main(["export", str(run_folder / "checkpoints" / "best.ckpt"), "--output", str(tmp_path / "net.pt2")])
    assert "probabilities differ by at most" in capsys.readouterr().out
    assert json.loads((tmp_path / "net.json").read_text())["classes"]["soleus"] == 100


def test_nothing_is_written_after_an_error(tmp_path, image, monkeypatch):
    checkpoint = write_checkpoint(tmp_path / "best.ckpt", "UNet", spatial_size=[32, 32])
    folder = tmp_path / "exported"
    with pytest.raises(ValueError, match=r"must end with .onnx or .pt2"):
        export_network(checkpoint, folder / "net.tar", image)
    with pytest.raises(ValueError, match="expected --image FILE"):
        export_network(checkpoint, folder / "net.pt2")
    monkeypatch.setattr(ExportedNetwork, "forward", lambda self, inputs: self.network(inputs * torch.rand(())))
    with pytest.raises(ValueError, match="The exported network differs"):
        export_network(checkpoint, folder / "net.pt2", image)
    assert not list(folder.glob("*"))
    assert not list(folder.glob(".*"))
