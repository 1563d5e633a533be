"""Segmentation and registration that train each other: DeepAtlas (Xu and Niethammer 2019)."""

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
    """Parts of the registration network's loss, unweighted.

    Attributes:
        similarity: Negative squared local correlation of warped and fixed image, in [-1, 0].
        bending: Bending energy of the displacement.
        anatomy: One minus soft Dice of warped and fixed anatomy.
    """

    similarity: Tensor
    bending: Tensor
    anatomy: Tensor


class DeepAtlasTask(SegmentationTask):
    """A segmentation and a registration network, trained in alternation on pairs of different patients.

    The registration network finds the displacement ``phi`` that warps a moving image onto a fixed one, with the loss
    ``similarity + regularisation_weight bending + anatomy_weight anatomy``; the segmentation network is trained with
    ``supervised_weight`` times the configured loss on the images that have a label, plus ``anatomy_weight anatomy``.
    Anatomy compares the warped with the fixed segmentation: the label where one may be used, else what the
    segmentation network predicts. Through predicted ones, the segmentation network learns from images without labels;
    where all have one (``data.labelled_fraction`` 1) the anatomy term has no gradient for it, and only the registration
    learns from the segmentation's side.

    Validation, testing and prediction are those of the segmentation network. With ``input_mode`` 2ch, the confidence
    map is the second channel of the images of both networks, and takes part in the similarity.

    Args:
        registration_options: Arguments of the registration network, MONAI's UNet, over
            :data:`cm_lightning.models.registration.REGISTRATION_DEFAULTS`.
        registration_learning_rate: Of the registration network's Adam.
        registration_steps: Steps of the registration network to each step of the segmentation network.
        pretraining_epochs: First epochs, in which only the segmentation network is trained, with its supervised loss.
        anatomy_weight: Weight of the anatomy term in both losses.
        supervised_weight: Weight of the supervised term.
        regularisation_weight: Weight of the bending energy; by default ``7.5 (size / 128)^2`` with the geometric mean
            ``size`` of the grid's sides, as displacements are in voxels.
        similarity_window: Side of the neighbourhoods of the local correlation, in voxels.
        gradient_clip_val: Largest norm, or value, of a gradient; None for no clipping. On the command line,
            ``trainer.gradient_clip_val`` does the same, which Lightning itself refuses for manual optimisation.
        gradient_clip_algorithm: ``norm`` or ``value``; or the trainer's.
        accumulate_grad_batches: Batches whose gradients make one step; or the trainer's.
        **kwargs: Those of :class:`SegmentationTask`.

    Raises:
        InputError: As :class:`SegmentationTask`, or a grid or window that the registration does not take.
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
        # Two optimisers that take turns: Lightning calls that manual optimisation.
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
        # How well every case is registered to its partner.
        self._quality: dict[str, dict[str, float]] = {}

    @property
    def pairs_per_case(self) -> int:
        """Pairs a case and epoch: on average, every case comes to the segmentation network's turn with one of them."""
        return self.registration_steps + 1

    def configure_models(self) -> None:
        """Build both networks."""
        super().configure_models()
        self.registration = create_registration_network(
            self.hparams["spatial_dims"], self.image_channels, **self.registration_options
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build one optimiser and one schedule for each network."""
        optimizers = [
            self._create_optimizer(self.network.parameters(), self.learning_rate),
            Adam(self.registration.parameters(), lr=self.registration_learning_rate),
        ]
        return optimizers, [self._schedule(optimizer) for optimizer in optimizers]

    def describe(self) -> str:
        """Say in a line what is trained, with the numbers of parameters."""
        return f"{super().describe()} Registration: {count_parameters(self.registration):,} parameters."

    def check_data(self, data: UltrasoundDataModule, stage: Stage) -> None:
        """Check that the data fit both networks and come in pairs."""
        super().check_data(data, stage)
        if data.spatial_size is None:
            raise InputError("DeepAtlas registers whole images; found data.patch_size, expected data.spatial_size.")
        check_size(self.registration, data.spatial_size)
        if stage == "fit" and not data.pairs_per_case:
            raise InputError(
                "DeepAtlas trains on pairs; found a data module with pairs_per_case 0, expected "
                f"{self.pairs_per_case}: registration_steps and one for the segmentation."
            )

    def displacement(self, moving: Batch, fixed: Batch) -> Tensor:
        """Find the field that warps one image onto another.

        Args:
            moving: Batch of the images to warp.
            fixed: Batch of the images to reach.

        Returns:
            In voxels, ``(B, spatial_dims, ...)``.
        """
        pair = torch.cat([self.network_input(fixed), self.network_input(moving)], dim=1)
        field: Tensor = self.registration(pair)
        return field

    def anatomy(self, batch: Batch, outputs: Tensor | None = None) -> Tensor:
        """Give the anatomy of images: the label where one may be used, else the predicted probabilities.

        Args:
            batch: A batch with ``labelled``.
            outputs: Outputs of the segmentation network for the batch; computed where they are needed and not given.

        Returns:
            ``(B, C, ...)``, float32.
        """
        known = self._one_hot(batch["label"])
        if batch["labelled"].all():
            return known
        if outputs is None:
            outputs = self(self.network_input(batch))
        labelled = batch["labelled"].reshape(-1, *(1,) * (known.ndim - 1))
        return torch.where(labelled, known, self.class_logits(outputs).float().softmax(dim=1))

    def registration_loss(self, moving: Batch, fixed: Batch) -> RegistrationLoss:
        """Compute the parts of the registration network's loss; none has a gradient for the segmentation network.

        Args:
            moving: Batch of the images to warp, with ``labelled``.
            fixed: Batch of the images to reach, with ``labelled``.

        Returns:
            The parts.
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
        """Compute the parts of the segmentation network's loss; none has a gradient for the registration network.

        Args:
            moving: Batch of images, with ``labelled``.
            fixed: Batch of their partners, with ``labelled``.
            with_anatomy: Compute the anatomy term; 0 without.

        Returns:
            The supervised loss over all images that have a label, and the anatomy term; both unweighted.
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
        """Train one of the two networks on a batch of pairs."""
        moving, fixed = batch, batch["partner"]
        size = len(batch["case"])
        pretrains = self.current_epoch < self.pretraining_epochs
        registers = not pretrains and self._cycle_position(batch_idx) < self.registration_steps
        self.network.train(not registers)
        self.registration.train(registers)
        if registers:
            parts = self.registration_loss(moving, fixed)
            bending_weight = self._bending_weight(tuple(batch["image"].shape[2:]))
            loss = parts.similarity + bending_weight * parts.bending + self.anatomy_weight * parts.anatomy
            self.log("train/registration/loss", loss, on_step=False, on_epoch=True, batch_size=size)
            for name, value in parts._asdict().items():
                self.log(f"train/registration/{name}", value, on_step=False, on_epoch=True, batch_size=size)
        else:
            supervised, anatomy = self.segmentation_loss(moving, fixed, with_anatomy=not pretrains)
            loss = self.supervised_weight * supervised + self.anatomy_weight * anatomy
            self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=size)
            self.log("train/anatomy", anatomy, on_step=False, on_epoch=True, batch_size=size)
        self.manual_backward(loss / self.accumulate_grad_batches)
        if (batch_idx + 1) % self.accumulate_grad_batches == 0 or self.trainer.is_last_batch:
            optimizer = self.optimizers()[int(registers)]  # type: ignore[index]
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip gradients, which mixed precision has unscaled by now."""
        if self.gradient_clip_val is not None:
            self.clip_gradients(
                optimizer,
                gradient_clip_val=self.gradient_clip_val,
                gradient_clip_algorithm=self.gradient_clip_algorithm,
            )

    def on_train_epoch_end(self) -> None:
        """Step the schedules, once the epoch was validated."""
        with warnings.catch_warnings():
            # In pretraining, the registration's schedule moves on without its optimiser, as it should.
            warnings.filterwarnings("ignore", message=".*before `optimizer.step.*")
            for schedule in self.lr_schedulers():  # type: ignore[union-attr]
                if not isinstance(schedule, ReduceLROnPlateau):
                    schedule.step()
                elif (value := self.trainer.callback_metrics.get(SCORE)) is not None:
                    schedule.step(value)

    def log_quality(self, outputs: Tensor, batch: Batch, stage: Literal["val", "test"]) -> None:
        """Measure how well every case is registered to its partner, to be logged at the end of the epoch.

        ``registration/dice``: mean over classes of the Dice between the warped label (the largest class of the warped
        one-hot label) and the partner's, ``registration/identity_dice``: the same of the label that is not warped,
        ``registration/folding``: share of voxels at which the field folds.
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
        """Mean Dice over the classes that either mask has; NaN if they have none."""
        return float(pd.Series(dice_per_class(prediction, label, len(self.class_names) + 1)).mean())

    def _cycle_position(self, batch_idx: int) -> int:
        """Step of the alternation: ``registration_steps`` of the registration, then one of the segmentation.

        Steps are counted on over epochs, which may be shorter than a cycle.
        """
        groups = math.ceil(self.trainer.num_training_batches / self.accumulate_grad_batches)
        steps = (self.current_epoch - self.pretraining_epochs) * groups + batch_idx // self.accumulate_grad_batches
        return steps % (self.registration_steps + 1)

    def _bending_weight(self, size: tuple[int, ...]) -> float:
        if self.regularisation_weight is not None:
            return self.regularisation_weight
        return 7.5 * (math.prod(size) ** (1 / len(size)) / 128) ** 2


def _join(moving: Batch, fixed: Batch) -> Batch:
    """Put the tensors of two batches after each other."""
    return {key: torch.cat([moving[key], fixed[key]]) for key in moving if torch.is_tensor(moving[key])}
