"""DeepAtlas: joint training of segmentation and registration."""

import math
import warnings
from typing import Any, Literal, NamedTuple

import pandas as pd
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.augmentation import Batch
from cm_lightning.data.description import IGNORED
from cm_lightning.errors import InputError
from cm_lightning.losses import ImageSimilarity, anatomy_loss, bending_energy
from cm_lightning.metrics import SCORE
from cm_lightning.metrics.registration import folding_fraction
from cm_lightning.metrics.segmentation import dice_per_class
from cm_lightning.models import count_parameters, create_registration_network
from cm_lightning.models.networks import check_size
from cm_lightning.models.registration import warp
from cm_lightning.tasks.base import Stage
from cm_lightning.tasks.distributed import gather_cases
from cm_lightning.tasks.segmentation import NOT_IN_CHECKPOINTS, SegmentationTask


class RegistrationLoss(NamedTuple):
    """Terms of the loss of the registration network without their weights, a scalar each.

    Attributes:
        similarity: Negative squared local normalised cross-correlation of the warped and the fixed image, from -1 to 0.
        bending: Bending energy of the displacement field.
        anatomy: Soft Dice loss between the warped and the fixed segmentation.
    """

    similarity: Tensor
    bending: Tensor
    anatomy: Tensor


class DeepAtlasTask(SegmentationTask):
    """DeepAtlas task: alternating training of a segmentation and a registration network on pairs of patients.

    The registration network predicts the displacement that warps a moving image onto a fixed image. Its loss is
    ``similarity + regularisation_weight * bending + anatomy_weight * anatomy``. The loss of the segmentation network is
    ``supervised_weight`` times the configured loss of the images with labels, plus ``anatomy_weight * anatomy``.

    The anatomy term compares the warped and the fixed segmentation. Labels are used if there are any, and predictions
    of the segmentation network otherwise. In this way, the segmentation network is also trained on images without
    labels. If all images have labels (``data.labelled_fraction`` 1), the anatomy term has no gradient for the
    segmentation network, and only the registration network uses it.

    Validation, test and prediction use the segmentation network. In the input mode 2ch, the confidence map is the
    second channel of the images of both networks, and is part of the similarity.

    Args:
        registration_options: Arguments of the registration network (UNet of MONAI), which take precedence over the
            default sizes (listed in configs/README.md).
        registration_learning_rate: Learning rate of Adam for the registration network.
        registration_steps: Number of steps of the registration network per step of the segmentation network.
        pretraining_epochs: Number of epochs at the start in which only the segmentation network is trained, with its
            supervised loss.
        anatomy_weight: Weight of the anatomy term in both losses.
        supervised_weight: Weight of the supervised loss.
        regularisation_weight: Weight of the bending energy. The default is ``7.5 (size / 128)^2``, with the geometric
            mean ``size`` of the side lengths in voxels, because displacements are in voxels.
        similarity_window: Side length of the local neighbourhoods of the cross-correlation in voxels, an odd number.
        gradient_clip_val: Maximum norm or value of gradients; no clipping by default. On the command line,
            ``trainer.gradient_clip_val`` is used as well, although Lightning does not support it for manual
            optimisation.
        gradient_clip_algorithm: ``norm`` or ``value``; ``trainer.gradient_clip_algorithm`` is used as well.
        accumulate_grad_batches: Number of batches per optimiser step; ``trainer.accumulate_grad_batches`` is used as
            well.
        **kwargs: Arguments of :class:`SegmentationTask`.

    Raises:
        InputError: An argument is invalid (see also :class:`SegmentationTask`).

    References:
        Xu and Niethammer, "DeepAtlas: joint semi-supervised learning of image registration and segmentation", MICCAI
        2019.
    """

    def __init__(
        self,
        *,
        registration_options: dict[str, Any] | None = None,
        registration_learning_rate: float = 5e-4,
        registration_steps: int = 8,
        pretraining_epochs: int = 5,
        anatomy_weight: float = 2.0,
        supervised_weight: float = 3.0,
        regularisation_weight: float | None = None,
        similarity_window: int = 3,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
        accumulate_grad_batches: int = 1,
        **kwargs: Any,
    ) -> None:
        if similarity_window < 1 or similarity_window % 2 == 0:
            raise InputError(f"similarity_window must be odd and at least 1, found {similarity_window}.")
        if registration_steps < 1 or accumulate_grad_batches < 1 or pretraining_epochs < 0:
            raise InputError(
                "registration_steps and accumulate_grad_batches must be at least 1 and pretraining_epochs at least 0, "
                f"found {registration_steps}, {accumulate_grad_batches} and {pretraining_epochs}."
            )
        self.registration_options = registration_options or {}
        super().__init__(**kwargs)
        self.save_hyperparameters(ignore=NOT_IN_CHECKPOINTS)
        # Lightning supports several optimisers only with manual optimisation.
        self.automatic_optimization = False
        self.registration_learning_rate = registration_learning_rate
        self.registration_steps = registration_steps
        self.pretraining_epochs = pretraining_epochs
        self.anatomy_weight = anatomy_weight
        self.supervised_weight = supervised_weight
        self.regularisation_weight = regularisation_weight
        self.similarity = ImageSimilarity(self.hparams["spatial_dims"], similarity_window)
        self.gradient_clip_val = gradient_clip_val
        self.gradient_clip_algorithm = gradient_clip_algorithm
        self.accumulate_grad_batches = accumulate_grad_batches
        # Measures of the registration of every case to its partner.
        self._quality: dict[str, dict[str, float]] = {}

    @property
    def pairs_per_case(self) -> int:
        """Number of pairs per case and epoch.

        On average, one of these pairs is used for a step of the segmentation network.
        """
        return self.registration_steps + 1

    def configure_models(self) -> None:
        """Create both networks."""
        super().configure_models()
        self.registration = create_registration_network(
            self.hparams["spatial_dims"], self.image_channels, **self.registration_options
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create an optimiser and a schedule for each network."""
        optimizers = [
            self._create_optimizer(self.network.parameters(), self.learning_rate),
            Adam(self.registration.parameters(), lr=self.registration_learning_rate),
        ]
        return optimizers, [self._schedule(optimizer) for optimizer in optimizers]

    def describe(self) -> str:
        """Return one line about both networks, with their numbers of parameters."""
        return f"{super().describe()} Registration: {count_parameters(self.registration):,} parameters."

    def check_data(self, data: UltrasoundDataModule, stage: Stage) -> None:
        """Check that the data match both networks and contain pairs."""
        super().check_data(data, stage)
        if data.spatial_size is None:
            raise InputError("DeepAtlas registers whole images: expected data.spatial_size, found data.patch_size.")
        check_size(self.registration, data.spatial_size)
        if IGNORED in data.label_classes:
            raise InputError(
                f"DeepAtlas registers whole labels, but data.classes contains {IGNORED!r}; expected a class or "
                "background for every voxel, or another network."
            )
        if stage == "fit" and not data.pairs_per_case:
            raise InputError(
                "DeepAtlas is trained on pairs, but pairs_per_case of the data module is 0; expected "
                f"{self.pairs_per_case} (registration_steps plus 1)."
            )

    def displacement(self, moving: Batch, fixed: Batch) -> Tensor:
        """Predict the displacement field from moving to fixed images.

        Args:
            moving: Batch of moving images.
            fixed: Batch of fixed images.

        Returns:
            Displacements in voxels, ``(B, spatial_dims, ...)``.
        """
        pair = torch.cat([self.network_input(fixed), self.network_input(moving)], dim=1)
        field: Tensor = self.registration(pair)
        return field

    def anatomy(self, batch: Batch, outputs: Tensor | None = None) -> Tensor:
        """Return the segmentations of images: one-hot labels if there are any, and predicted probabilities otherwise.

        Args:
            batch: Batch with ``labelled``, the flags of images with labels.
            outputs: Outputs of the segmentation network for the batch; computed if they are needed and None.

        Returns:
            Class probabilities, float32, ``(B, C, ...)``.
        """
        one_hot = self._one_hot(batch["label"])
        if batch["labelled"].all():
            return one_hot
        if outputs is None:
            outputs = self(self.network_input(batch))
        labelled = batch["labelled"].reshape(-1, *(1,) * (one_hot.ndim - 1))
        return torch.where(labelled, one_hot, self.class_logits(outputs).float().softmax(dim=1))

    def registration_loss(self, moving: Batch, fixed: Batch) -> RegistrationLoss:
        """Compute the terms of the registration loss, without gradients for the segmentation network.

        Args:
            moving: Batch of moving images, with ``labelled``.
            fixed: Batch of fixed images, with ``labelled``.

        Returns:
            The terms.
        """
        field = self.displacement(moving, fixed)
        with torch.no_grad():
            moving_anatomy, fixed_anatomy = self.anatomy(moving), self.anatomy(fixed)
        return RegistrationLoss(
            self.similarity(warp(self.network_input(moving), field), self.network_input(fixed)),
            bending_energy(field),
            anatomy_loss(warp(moving_anatomy, field), fixed_anatomy),
        )

    def segmentation_loss(self, moving: Batch, fixed: Batch, with_anatomy: bool = True) -> tuple[Tensor, Tensor]:
        """Compute the terms of the segmentation loss, without gradients for the registration network.

        Args:
            moving: Batch of moving images, with ``labelled``.
            fixed: Batch of fixed images, with ``labelled``.
            with_anatomy: Whether to compute the anatomy term, which is 0 otherwise.

        Returns:
            The supervised loss of all images with labels, and the anatomy term, both without their weights.
        """
        both = _join(moving, fixed)
        outputs = self(self.network_input(both))
        labelled = both["labelled"]
        supervised = self.loss(outputs[labelled], {key: value[labelled] for key, value in both.items()})
        if labelled.all() or not with_anatomy:
            return supervised, supervised.new_zeros(())
        with torch.no_grad():
            field = self.displacement(moving, fixed)
        moving_anatomy, fixed_anatomy = self.anatomy(both, outputs).chunk(2)
        return supervised, anatomy_loss(warp(moving_anatomy, field), fixed_anatomy)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Train one of the two networks on a batch of pairs, and return its loss without a gradient."""
        moving, fixed = batch, batch["partner"]
        size = len(batch["case"])
        pretraining = self.current_epoch < self.pretraining_epochs
        trains_registration = not pretraining and self._cycle_position(batch_idx) < self.registration_steps
        self.network.train(not trains_registration)
        self.registration.train(trains_registration)
        if trains_registration:
            parts = self.registration_loss(moving, fixed)
            bending_weight = self._bending_weight(tuple(batch["image"].shape[2:]))
            loss = parts.similarity + bending_weight * parts.bending + self.anatomy_weight * parts.anatomy
            self.log("train/registration/loss", loss, on_step=False, on_epoch=True, batch_size=size)
            for name, value in parts._asdict().items():
                self.log(f"train/registration/{name}", value, on_step=False, on_epoch=True, batch_size=size)
        else:
            supervised, anatomy = self.segmentation_loss(moving, fixed, with_anatomy=not pretraining)
            loss = self.supervised_weight * supervised + self.anatomy_weight * anatomy
            self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True, batch_size=size)
            self.log("train/anatomy", anatomy, on_step=False, on_epoch=True, batch_size=size)
        self.manual_backward(loss / self.accumulate_grad_batches)
        if (batch_idx + 1) % self.accumulate_grad_batches == 0 or self.trainer.is_last_batch:
            optimizer = self.optimizers()[int(trains_registration)]  # type: ignore[index]
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip gradients after mixed precision has unscaled them."""
        if self.gradient_clip_val is not None:
            self.clip_gradients(
                optimizer,
                gradient_clip_val=self.gradient_clip_val,
                gradient_clip_algorithm=self.gradient_clip_algorithm,
            )

    def on_train_epoch_end(self) -> None:
        """Update the learning rate schedules after validation."""
        with warnings.catch_warnings():
            # During pretraining, the schedule of the registration is updated without optimiser steps.
            warnings.filterwarnings("ignore", message=".*before `optimizer.step.*")
            for schedule in self.lr_schedulers():  # type: ignore[union-attr]
                if not isinstance(schedule, ReduceLROnPlateau):
                    schedule.step()
                elif (value := self.trainer.callback_metrics.get(SCORE)) is not None:
                    schedule.step(value)

    def log_quality(self, outputs: Tensor, batch: Batch, stage: Literal["val", "test"]) -> None:
        """Measure the registration of every case to its partner, to be logged at the end of the epoch.

        These are ``registration/dice``, the mean Dice over classes between the warped label (argmax of the warped
        one-hot label) and the label of the partner; ``registration/identity_dice``, the same without warping; and
        ``registration/folding``, the fraction of voxels at which the displacement field folds.
        """
        super().log_quality(outputs, batch, stage)
        if "partner" not in batch:
            return
        fixed = batch["partner"]
        field = self.displacement(batch, fixed)
        warped = warp(self._one_hot(batch["label"]), field).argmax(dim=1)
        for index, folding in enumerate(folding_fraction(field).tolist()):
            moving_label, fixed_label = batch["label"][index, 0], fixed["label"][index, 0]
            self._quality[batch["case"][index]] = {
                "dice": self._mean_dice(warped[index], fixed_label),
                "identity_dice": self._mean_dice(moving_label, fixed_label),
                "folding": folding,
            }

    def on_validation_epoch_end(self) -> None:
        """Log the means of segmentation and registration."""
        super().on_validation_epoch_end()
        self._log_registration("val")

    def on_test_epoch_end(self) -> None:
        """Log the means of segmentation and registration."""
        super().on_test_epoch_end()
        self._log_registration("test")

    def _log_registration(self, stage: Literal["val", "test"]) -> None:
        rows = gather_cases(self._quality)
        self._quality.clear()
        for name, value in pd.DataFrame(rows.values(), dtype=float).mean().items():
            self.log(f"{stage}/registration/{name}", torch.tensor(value, dtype=torch.float32), sync_dist=True)

    def _one_hot(self, label: Tensor) -> Tensor:
        return F.one_hot(label[:, 0].long(), len(self.class_names) + 1).movedim(-1, 1).float()

    def _mean_dice(self, prediction: Tensor, label: Tensor) -> float:
        """Return the mean Dice over the classes that are in either of the two; NaN if there are none."""
        return float(pd.Series(dice_per_class(prediction, label, len(self.class_names) + 1)).mean())

    def _cycle_position(self, batch_idx: int) -> int:
        """Return the position in a cycle of ``registration_steps`` steps of registration and one of segmentation.

        The count continues over epochs, which may be shorter than a cycle.
        """
        groups = math.ceil(self.trainer.num_training_batches / self.accumulate_grad_batches)
        steps = (self.current_epoch - self.pretraining_epochs) * groups + batch_idx // self.accumulate_grad_batches
        return steps % (self.registration_steps + 1)

    def _bending_weight(self, size: tuple[int, ...]) -> float:
        if self.regularisation_weight is not None:
            return self.regularisation_weight
        return 7.5 * (math.prod(size) ** (1 / len(size)) / 128) ** 2


def _join(moving: Batch, fixed: Batch) -> Batch:
    """Concatenate the tensors of two batches."""
    return {key: torch.cat([moving[key], fixed[key]]) for key in moving if torch.is_tensor(moving[key])}
