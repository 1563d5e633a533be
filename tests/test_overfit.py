"""Overfitting of every network to a single small phantom."""

import pytest
from monai.data import CacheDataset
from pytorch_lightning import Trainer, seed_everything
from torch.utils.data import DataLoader, Subset

from cm_lightning.data import Phantom, UltrasoundDataModule
from cm_lightning.data.pairs import PairDataset
from cm_lightning.tasks import DeepAtlasTask, SegmentationTask

CLASSES = {"soleus": 100, "gastrocnemius_medialis": 150, "gastrocnemius_lateralis": 200}
SIZE = [32, 32, 32]
UNETR = {"hidden_size": 96, "mlp_dim": 192, "num_heads": 4, "dropout_rate": 0.1}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Return prepared cases of two phantoms."""
    root = tmp_path_factory.mktemp("overfit")
    Phantom("muscle", patients=11, size=(32, 32, 32), spacing=(1.5, 1.8, 3.0)).write(root / "set")
    data = UltrasoundDataModule(root / "set", CLASSES, spatial_size=SIZE, split="study", cache_dir=root / "cache")
    data.prepare_data()
    data.setup("fit")
    return CacheDataset(data.training_set.data[:2], data.training_set.transform, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "options", "steps"),
    [
        ("UNet", {}, 400),
        ("AttentionUnet", {}, 400),
        ("DynUNet", {}, 400),
        ("UNETR", UNETR, 600),
        ("DeepAtlas", {}, 400),
    ],
)
def test_network_overfits_to_one_phantom(network, options, steps, cases, tmp_path):
    seed_everything(0)
    common = {"classes": CLASSES, "spatial_dims": 3, "spatial_size": SIZE, "loss": "diceCE", "learning_rate": 5e-3}
    if network == "DeepAtlas":
        # Registration needs two phantoms, and the segmentation network learns both of them.
        task = DeepAtlasTask(**common, registration_steps=1, pretraining_epochs=steps // 2)
        train, validation = PairDataset(cases, [case.patient for case in cases.data], 2), PairDataset(cases, [])
    else:
        task = SegmentationTask(**common, network=network, network_options=options)
        train = validation = Subset(cases, [0])
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        check_val_every_n_epoch=20,
        default_root_dir=tmp_path,
    )
    trainer.fit(task, DataLoader(train, 1, shuffle=True), DataLoader(validation, 1))
    (results,) = trainer.validate(task, DataLoader(validation, 1), verbose=False)
    assert results["val/dice/mean"] > 0.95
