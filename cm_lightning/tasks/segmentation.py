"""Supervised segmentation with a switchable network, input and loss."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.augmentation import Batch
from cm_lightning.errors import InputError
from cm_lightning.losses import LossName, Remainder, SegmentationLoss, Target
from cm_lightning.metrics import SCORE
from cm_lightning.models import NetworkName, count_parameters, create_network, load_pretrained
from cm_lightning.models.dropout import check_dropout
from cm_lightning.models.networks import check_size, pad_to_fit
from cm_lightning.tasks.base import BaseTask, Stage
from cm_lightning.tasks.native import native_segmentation, to_native
from cm_lightning.tasks.schedules import ScheduleName, create_schedule, set_rate
from cm_lightning.uncertainty import MCDropout, SampledPrediction, sample_dropout

InputMode = Literal["1ch", "2ch"]

# A checkpoint holds all weights and needs no other file; the optimiser is in the run's settings; post-processing,
# calibration and sampling are chosen anew by each command.
NOT_IN_CHECKPOINTS = [
    "init_from",
    "mc_dropout",
    "largest_component",
    "temperature_scaling",
    "optimizer",
    "lr_scheduler",
]


class SegmentationTask(BaseTask):
    """One network, one input mode and one loss of the study's comparison.

    Args:
        classes: Value in the label files of every class; set from the data module.
        spatial_dims: 2 or 3; set from the data module.
        network: Which network.
        network_options: The network's own arguments, over the defaults of :mod:`cm_lightning.models.networks`.
        input_mode: ``1ch`` sees the image, ``2ch`` the image and its confidence map.
        confidence_scale: Factor of the confidence map as input channel. 1 is the study's; a map is smooth and spreads
            further than an image, so that short trainings with large steps do better with less.
        loss: Which loss; ``CEconf`` and ``diceCEconf`` weight cross-entropy by the confidence map.
        batch_dice: Compute Dice over the whole batch; for images in which classes are often absent.
        cross_entropy_weight: Weight of the cross-entropy beside Dice, in diceCE and diceCEconf.
        target: Target of CEconf and diceCEconf: the study's ``mask`` (label times map), or ``soft``, a distribution
            whose minimiser is calibrated to the confidence.
        remainder: Where a ``soft`` target puts the mass that confidence removes.
        optimizer: Class of the optimiser with its settings, its learning rate included; by default Adam, as in the
            study, with ``learning_rate``.
        learning_rate: Of Adam; another ``optimizer`` brings its own.
        lr_scheduler: Class of the schedule with its settings, stepped once an epoch, in place of ``schedule`` and
            ``warmup_epochs``.
        schedule: Learning rate over epochs; see :func:`cm_lightning.tasks.schedules.create_schedule`.
        warmup_epochs: Epochs over which the learning rate first rises.
        confidence_head: Weight of an auxiliary head that predicts the confidence map from the image, by binary
            cross-entropy with the solver's map; 0 for none. A network that has one needs no solver to give a map.
        mc_dropout: In ``predict``, run the network many times with dropout and give the mean, and how far and where the
            samples differ; None for one pass without.
        largest_component: In ``predict``, keep the largest connected component alone of the classes for which this
            raised the validation Dice of the epoch that the checkpoint is of; in ``test``, measure with and without.
        temperature_scaling: In every validation, fit the temperature of the logits; in ``predict``, divide by that of
            the checkpoint, which changes probabilities and no segmentation; in ``test``, measure calibration with and
            without. The mean over MC dropout is not scaled: the temperature is that of one pass without dropout.
        init_from: Checkpoint to take weights from before training; input channels and classes may differ.
        spatial_size: Grid of the images; set from the data module.
        patch_size: Size of training patches and of the sliding window; set from the data module.

    Raises:
        InputError: Unknown input mode, loss or network, arguments that do not go together, or a grid that the network
            does not take.
    """

    def __init__(
        self,
        classes: dict[str, int],
        spatial_dims: Literal[2, 3] = 3,
        network: NetworkName = "UNet",
        network_options: dict[str, Any] | None = None,
        input_mode: InputMode = "2ch",
        confidence_scale: float = 1.0,
        loss: LossName = "dice",
        batch_dice: bool = False,
        cross_entropy_weight: float = 1.0,
        target: Target = "mask",
        remainder: Remainder = "background",
        optimizer: OptimizerCallable | None = None,
        learning_rate: float = 1e-3,
        lr_scheduler: LRSchedulerCallable | None = None,
        schedule: ScheduleName = "constant",
        warmup_epochs: int = 0,
        confidence_head: float = 0.0,
        mc_dropout: MCDropout | None = None,
        largest_component: bool = False,
        temperature_scaling: bool = False,
        init_from: Path | None = None,
        spatial_size: list[int] | None = None,
        patch_size: list[int] | None = None,
    ) -> None:
        window = None if patch_size is None else tuple(patch_size)
        super().__init__(classes, window, largest_component, temperature_scaling)
        if input_mode not in get_args(InputMode):
            raise InputError(f"Unknown input mode {input_mode!r}; expected one of {', '.join(get_args(InputMode))}.")
        if confidence_head < 0:
            raise InputError(f"confidence_head must be at least 0, found {confidence_head}.")
        if confidence_scale <= 0:
            raise InputError(f"confidence_scale must be above 0, found {confidence_scale}; 1ch leaves the map out.")
        if confidence_head and input_mode == "2ch":
            raise InputError("A confidence head predicts the map from the image; in input mode 2ch it would copy it.")
        self.save_hyperparameters(ignore=NOT_IN_CHECKPOINTS)
        self.input_mode = input_mode
        self.confidence_scale = confidence_scale
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.lr_scheduler = lr_scheduler
        self.confidence_head = confidence_head
        self.mc_dropout = mc_dropout
        self.configure_models()
        self.configure_losses()
        if mc_dropout is not None:
            self.check_sampling(mc_dropout)
        self._check_schedule()
        if init_from is not None:
            self._load_pretrained(Path(init_from))

    @property
    def image_channels(self) -> int:
        """Channels of an image: itself and, in ``2ch``, its confidence map."""
        return {"1ch": 1, "2ch": 2}[self.input_mode]

    def configure_models(self) -> None:
        """Build the network and check that it takes the images' grid."""
        hparams = self.hparams
        size = hparams["patch_size"] or hparams["spatial_size"]
        self.network = create_network(
            hparams["network"],
            hparams["spatial_dims"],
            self.image_channels,
            len(self.class_names) + 1 + bool(self.confidence_head),
            None if size is None else tuple(size),
            **(hparams["network_options"] or {}),
        )

    def configure_losses(self) -> None:
        """Build the loss."""
        names = ("loss", "batch_dice", "cross_entropy_weight", "target", "remainder")
        self.criterion = SegmentationLoss(*(self.hparams[name] for name in names))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimiser, by default Adam as in the study, and its schedule."""
        optimizer = self._create_optimizer(self.network.parameters(), self.learning_rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self._schedule(optimizer), "monitor": SCORE, "strict": False},
        }

    def describe(self) -> str:
        """Say in a line what is trained, with its number of parameters."""
        name, channels = self.hparams["network"], self.image_channels
        return (
            f"{name} with {channels} input channel{'s' * (channels > 1)} and {len(self.class_names) + 1} classes: "
            f"{count_parameters(self.network):,} parameters."
        )

    def on_fit_start(self) -> None:
        """Say what is trained."""
        rank_zero_info(self.describe())

    def on_train_start(self) -> None:
        """Set the rate that the schedule has at this epoch; a checkpoint of a shorter training knows another."""
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, LambdaLR):
                set_rate(config.scheduler)

    def needs_confidence(self, stage: Stage) -> bool:
        """Whether a stage cannot run without confidence maps."""
        in_loss = self.criterion.needs_confidence or bool(self.confidence_head)
        return self.input_mode == "2ch" or (in_loss and stage in ("fit", "validate"))

    def check_data(self, data: UltrasoundDataModule, stage: Stage) -> None:
        """Check that the data fit this task: classes, maps and the grid that the network takes."""
        super().check_data(data, stage)
        if data.spatial_dims != self.hparams["spatial_dims"]:
            raise InputError(
                f"The model is for {self.hparams['spatial_dims']} dimensions; data.spatial_dims is {data.spatial_dims}."
            )
        size = data.patch_size or data.spatial_size
        if size is not None:
            check_size(self.network, size)

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the network on joined channels.

        Args:
            inputs: ``(B, channels, ...)``.

        Returns:
            Logits of the classes and, where there is a confidence head, of the map: ``(B, C[ + 1], ...)``.
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
        return torch.cat([image, self.confidence_scale * batch["confidence"].to(image.dtype)], dim=1)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the configured loss, the confidence head's included."""
        value: Tensor = self.criterion(self.class_logits(outputs), batch["label"], batch.get("confidence"))
        if not self.confidence_head:
            return value
        inside = batch["domain"].bool()
        predicted, solved = outputs[:, -1:].float()[inside], batch["confidence"].float()[inside]
        # A patch may lie in a black band whole: nothing is insonified, and nothing to learn.
        total = F.binary_cross_entropy_with_logits(predicted, solved, reduction="sum")
        return value + self.confidence_head * total / inside.sum().clamp_min(1)

    def log_quality(self, outputs: Tensor, batch: Batch, stage: Literal["val", "test"]) -> None:
        """Log how far the confidence head is from the solver: mean absolute error over insonified pixels."""
        if self.confidence_head and "confidence" in batch:
            inside = batch["domain"].bool()
            difference = (outputs[:, -1:].float().sigmoid() - batch["confidence"].float()).abs()[inside]
            error = difference.sum() / inside.sum().clamp_min(1)
            self.log(f"{stage}/confidence_error", error, sync_dist=True, batch_size=len(batch["case"]))

    def check_sampling(self, settings: MCDropout) -> None:
        """Check that the network can be sampled as the settings say.

        Args:
            settings: How it is sampled.

        Raises:
            InputError: The network has no dropout, or there are no windows where they are asked for.
        """
        check_dropout(self.network)
        if settings.inference == "windows" and self.window is None:
            raise InputError(
                "mc_dropout.inference windows slides the window of training with data.patch_size, and none is set; "
                "expected whole."
            )

    def sample(
        self, batch: Batch, settings: MCDropout, each: Callable[[Tensor], None] | None = None
    ) -> SampledPrediction:
        """Run the network on one case many times with dropout.

        Args:
            batch: A batch of that case.
            settings: How it is sampled.
            each: Is shown the class probabilities of every sample, ``(C, ...)``, one after the other.

        Returns:
            The samples, summed up, on the network's grid.

        Raises:
            InputError: As :meth:`check_sampling`.
        """
        self.check_sampling(settings)

        def logits(inputs: Tensor) -> Tensor:
            padded = self.class_logits(self(pad_to_fit(self.network, inputs)))
            original: tuple[Any, ...] = (..., *(slice(n) for n in inputs.shape[2:]))
            return padded[original]

        window = self.window if settings.inference == "windows" else None
        return sample_dropout(self.network, logits, self.network_input(batch), batch["case"][0], settings, window, each)

    def predict_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Predict one case at file resolution.

        Returns:
            As :meth:`BaseTask.predict_step`. With MC dropout, ``probabilities`` are the mean of the samples, and beside
            them are their ``entropy``, ``expected_entropy`` and ``mutual_information`` ``(depth, lateral[,
            elevation])``, ``variance`` and ``votes`` ``(C, ...)``, ``sampled_segmentations`` ``(k, ...)``, the most
            plausible first, and their ``plausibility``.
        """
        prediction = super().predict_step(batch, batch_idx)
        if self.mc_dropout is None:
            return prediction
        sampled = self.sample(batch, self.mc_dropout)
        prediction["probabilities"] = torch.stack(list(to_native(sampled.mean[None], batch)))
        prediction["segmentation"] = self.largest_component(prediction["probabilities"].argmax(dim=0))
        for name in ("entropy", "expected_entropy", "mutual_information"):
            prediction[name] = next(to_native(getattr(sampled, name)[None, None], batch))
        for name in ("variance", "votes"):
            prediction[name] = torch.stack(list(to_native(getattr(sampled, name)[None], batch)))
        kept = [native_segmentation(probabilities[None], batch) for probabilities in sampled.kept]
        return {**prediction, "sampled_segmentations": kept, "plausibility": sampled.plausibility}

    def native_maps(self, outputs: Tensor, batch: Batch) -> Batch:
        """Give the confidence map of one case and, where there is a head for it, the predicted one."""
        maps = super().native_maps(outputs, batch)
        if self.confidence_head:
            maps["predicted_confidence"] = next(to_native(outputs[:, -1:].float().sigmoid(), batch))
        return maps

    def _create_optimizer(self, parameters: Iterable[Tensor], learning_rate: float) -> Optimizer:
        """Build the configured optimiser, or Adam with a learning rate."""
        return Adam(parameters, lr=learning_rate) if self.optimizer is None else self.optimizer(parameters)

    def _schedule(self, optimizer: Optimizer) -> Any:
        if self.lr_scheduler is not None:
            return self.lr_scheduler(optimizer)
        hparams = self.hparams
        return create_schedule(hparams["schedule"], optimizer, self.trainer.max_epochs, hparams["warmup_epochs"])

    def _check_schedule(self) -> None:
        """Build a schedule without parameters, so that wrong settings are reported before there is a trainer."""
        optimizer = self._create_optimizer([torch.zeros(1)], self.learning_rate)
        if self.lr_scheduler is None:
            create_schedule(self.hparams["schedule"], optimizer, 1, self.hparams["warmup_epochs"])

    def _load_pretrained(self, path: Path) -> None:
        notes = load_pretrained(self, path)
        loaded = len(self.state_dict()) - sum("only in the checkpoint" not in note for note in notes)
        rank_zero_info(f"Loaded {loaded} of {len(self.state_dict())} tensors as they are from {path}.")
        for note in notes:
            rank_zero_info(f"  {note}")
