"""Supervised segmentation with a switchable input and loss."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from cm_lightning.data.augmentation import Batch
from cm_lightning.errors import InputError
from cm_lightning.losses import LossName, SegmentationLoss
from cm_lightning.models import NetworkName, create_network
from cm_lightning.models.networks import refuse_size
from cm_lightning.tasks.base import BaseTask

InputMode = Literal["1ch", "2ch"]


class SegmentationTask(BaseTask):
    """One network, one input mode and one loss of the study's comparison.

    Args:
        classes: Value in the label files of every class; set from the data module.
        spatial_dims: 2 or 3; set from the data module.
        network: Which network.
        network_options: The network's own arguments, over its defaults.
        input_mode: ``1ch`` sees the image, ``2ch`` the image and its confidence map.
        loss: Which loss; ``CEconf`` and ``diceCEconf`` weight cross-entropy by the confidence map.
        batch_dice: Compute Dice over the whole batch; for images in which classes are often absent.
        learning_rate: Of Adam.
        spatial_size: Grid of the images; set from the data module.
        patch_size: Size of training patches and of the sliding window; set from the data module.

    Raises:
        InputError: Unknown input mode, loss or network, or a grid that the network does not take.
    """

    def __init__(
        self,
        classes: dict[str, int],
        spatial_dims: Literal[2, 3] = 3,
        network: NetworkName = "UNet",
        network_options: dict[str, Any] | None = None,
        input_mode: InputMode = "2ch",
        loss: LossName = "dice",
        batch_dice: bool = False,
        learning_rate: float = 1e-3,
        spatial_size: list[int] | None = None,
        patch_size: list[int] | None = None,
    ) -> None:
        super().__init__(classes, None if patch_size is None else tuple(patch_size))
        if input_mode not in get_args(InputMode):
            raise InputError(f"Unknown input mode {input_mode!r}; expected one of {', '.join(get_args(InputMode))}.")
        self.save_hyperparameters()
        self.input_mode = input_mode
        self.learning_rate = learning_rate
        self.configure_models()
        self.configure_losses()

    def configure_models(self) -> None:
        """Build the network and check that it takes the images' grid."""
        hparams = self.hparams
        channels = {"1ch": 1, "2ch": 2}[self.input_mode]
        self.network = create_network(
            hparams["network"],
            hparams["spatial_dims"],
            channels,
            len(self.class_names) + 1,
            **(hparams["network_options"] or {}),
        )
        size = hparams["patch_size"] or hparams["spatial_size"]
        if size is not None:
            refuse_size(self.network, hparams["spatial_dims"], channels, tuple(size))

    def configure_losses(self) -> None:
        """Build the loss."""
        self.criterion = SegmentationLoss(self.hparams["loss"], self.hparams["batch_dice"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Give Adam, as in the study."""
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the network on joined channels.

        Args:
            inputs: ``(B, channels, ...)``.

        Returns:
            Logits, ``(B, C, ...)``.
        """
        logits: Tensor = self.network(inputs)
        return logits

    def network_input(self, batch: Batch) -> Tensor:
        """Join image and, in ``2ch``, confidence map."""
        image: Tensor = batch["image"]
        if self.input_mode == "1ch":
            return image
        if "confidence" not in batch:
            raise InputError("The input mode 2ch needs confidence maps; found none (data.confidence_mode none?).")
        return torch.cat([image, batch["confidence"].to(image.dtype)], dim=1)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Compute the configured loss."""
        value: Tensor = self.criterion(logits, batch["label"], batch.get("confidence"))
        return value
