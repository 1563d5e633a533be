"""Supervised segmentation with a choice of network, input and loss."""

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
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.augmentation import Batch
from cm_lightning.errors import InputError
from cm_lightning.losses import LossName, Remainder, SegmentationLoss, Target
from cm_lightning.metrics import SCORE
from cm_lightning.metrics.segmentation import NSD_TOLERANCE
from cm_lightning.models import NetworkName, count_parameters, create_network, load_pretrained
from cm_lightning.models.dropout import check_dropout
from cm_lightning.models.networks import check_size, pad_to_fit, use_channels_last
from cm_lightning.tasks.base import BaseTask, MirroredAxis, Prediction, Stage, most_probable
from cm_lightning.tasks.native import NativeFrames
from cm_lightning.tasks.schedules import ScheduleName, create_schedule, set_learning_rate
from cm_lightning.tasks.windows import Maps
from cm_lightning.uncertainty import MCDropout, SampledPrediction, sample_dropout

InputMode = Literal["1ch", "2ch"]

# Settings that are not stored in checkpoints: a checkpoint contains all weights, so init_from is not needed again;
# the optimiser is stored in the settings of the run; and each command chooses its own post-processing, calibration and
# sampling.
NOT_IN_CHECKPOINTS = [
    "init_from",
    "mc_dropout",
    "largest_component",
    "temperature_scaling",
    "mirroring",
    "nsd_tolerance",
    "optimizer",
    "lr_scheduler",
]


class SegmentationTask(BaseTask):
    """Segmentation task with one network, input mode and loss of the study's comparison.

    Args:
        classes: Value of every class in the label files; set from the data module.
        spatial_dims: Number of spatial dimensions, 2 or 3; set from the data module.
        network: Network architecture.
        network_options: Further arguments of the network in MONAI, such as ``{channels: [16, 32, 64], strides: [2,
            2]}``, which take precedence over the default sizes (listed in configs/README.md).
        input_mode: ``1ch`` for the image, ``2ch`` for the image and its confidence map.
        confidence_scale: Factor by which the confidence map is multiplied as an input channel; 1 in the study.
            Confidence maps have a larger variance than images; that a smaller factor is better is not established.
        loss: Loss; ``CEconf`` and ``diceCEconf`` weight the cross-entropy by the confidence map.
        batch_dice: Compute the Dice loss over the entire batch, for images in which classes are often absent.
        dice_background: Whether the background is one of the classes of the Dice loss, as in the study; nnU-Net leaves
            it out.
        cross_entropy_weight: Weight of the cross-entropy relative to the Dice loss, in diceCE and diceCEconf.
        target: Target of CEconf and diceCEconf: ``mask``, the label times the confidence map as in the study, or
            ``soft``, a distribution that makes the predicted probability equal to the confidence.
        remainder: Class that gets the probability ``1 - confidence`` of the ``soft`` target: ``background``, or all
            classes equally (``uniform``).
        optimizer: Class of the optimiser with its settings including the learning rate. The default is Adam, as in the
            study, with ``learning_rate``.
        learning_rate: Learning rate of Adam; ignored if ``optimizer`` is set.
        lr_scheduler: Class of a learning rate schedule with its settings, which is updated once per epoch and replaces
            ``schedule`` and ``warmup_epochs``.
        schedule: Learning rate schedule: ``constant``; ``cosine``, a cosine decay to 0; ``polynomial``, the decay
            ``(1 - epoch / epochs) ** 0.9`` of nnU-Net; or ``plateau``, which halves the learning rate if the validation
            Dice has not increased for 10 epochs.
        warmup_epochs: Number of epochs of a linear warm-up of the learning rate.
        confidence_head: Weight of the loss of an auxiliary output that predicts the confidence map from the image
            (binary cross-entropy with the computed map); 0 for no such output. Such a network predicts confidence
            maps without the solver.
        mc_dropout: Settings of MC dropout in ``predict``, which averages several predictions with active dropout and
            returns their uncertainty; by default there is a single prediction without dropout.
        largest_component: In ``predict``, keep only the largest connected component of those classes for which this
            increased the validation Dice in the epoch of the checkpoint. In ``test``, measure with and without this
            post-processing.
        temperature_scaling: Fit the temperature of the logits in every validation. In ``predict``, divide the logits by
            the temperature of the checkpoint, which changes probabilities but not the segmentation. In ``test``,
            measure calibration with and without it. The mean of MC dropout is not scaled, since the temperature is
            fitted to predictions without dropout.
        mirroring: Axes (``lateral``, ``elevation``) along which images are mirrored in ``test`` and ``predict``. The
            probabilities of all combinations are averaged. Do not use it if classes differ by their side.
        nsd_tolerance: Tolerance of the normalised surface Dice in ``test``, in the unit of distances (mm, or pixels
            without a known size), for all classes or as ``{class: tolerance}``; 2 for classes that are not named.
        init_from: Checkpoint with initial weights; its numbers of input channels and classes may differ.
        spatial_size: Size of the images in voxels; set from the data module.
        patch_size: Size of training patches and of the sliding window in voxels; set from the data module.

    Raises:
        InputError: The input mode, loss or network is unknown, arguments cannot be combined, or the network does not
            support the image size.
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
        dice_background: bool = True,
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
        mirroring: list[MirroredAxis] | None = None,
        nsd_tolerance: float | dict[str, float] = NSD_TOLERANCE,
        init_from: Path | None = None,
        spatial_size: list[int] | None = None,
        patch_size: list[int] | None = None,
    ) -> None:
        window = None if patch_size is None else tuple(patch_size)
        super().__init__(classes, window, largest_component, temperature_scaling, mirroring or (), nsd_tolerance)
        if input_mode not in get_args(InputMode):
            raise InputError(f"Unknown input mode {input_mode!r}; expected one of {', '.join(get_args(InputMode))}.")
        if confidence_head < 0:
            raise InputError(f"confidence_head must be at least 0, found {confidence_head}.")
        if confidence_scale <= 0:
            raise InputError(
                f"confidence_scale must be above 0, found {confidence_scale}; use input_mode 1ch to leave out the map."
            )
        if confidence_head and input_mode == "2ch":
            raise InputError(
                "confidence_head must be 0 for the input mode 2ch, in which the network could copy the confidence map; "
                f"found {confidence_head}."
            )
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
        """Number of channels of an image: 1, or 2 with its confidence map."""
        return {"1ch": 1, "2ch": 2}[self.input_mode]

    @property
    def prediction_kind(self) -> str:
        """Name of the subfolder for predictions with the current settings; empty for a plain prediction."""
        return super().prediction_kind if self.mc_dropout is None else "mc_dropout"

    def configure_models(self) -> None:
        """Create the network, and check that it supports the image size."""
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
        """Create the loss."""
        names = ("loss", "batch_dice", "cross_entropy_weight", "target", "remainder", "dice_background")
        self.criterion = SegmentationLoss(*(self.hparams[name] for name in names))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create the optimiser and its schedule."""
        optimizer = self._create_optimizer(self.network.parameters(), self.learning_rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self._schedule(optimizer), "monitor": SCORE, "strict": False},
        }

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Update a schedule, except for ``plateau``: Lightning would update it only after the epoch's checkpoint."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def on_train_epoch_end(self) -> None:
        """Update the schedule ``plateau`` before the checkpoint of the epoch is saved."""
        value = self.trainer.callback_metrics.get(SCORE)
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau) and value is not None:
                config.scheduler.step(value)

    def describe(self) -> str:
        """Return one line about the network, with its number of parameters."""
        name, channels, classes = self.hparams["network"], self.image_channels, len(self.class_names)
        return (
            f"{name} with {channels} input channel{'s' * (channels > 1)}, {classes} class{'es' * (classes > 1)} and "
            f"background: {count_parameters(self.network):,} parameters."
        )

    def on_fit_start(self) -> None:
        """Print one line about the network, and store the channels of its weights as GPUs compute fastest."""
        rank_zero_info(self.describe())
        if self.device.type == "cuda":
            use_channels_last(self.network)

    def on_train_start(self) -> None:
        """Set the learning rate of this epoch, since that in a checkpoint of a shorter run may differ."""
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, LambdaLR):
                set_learning_rate(config.scheduler)

    def needs_confidence(self, stage: Stage) -> bool:
        """Return whether a stage requires confidence maps."""
        in_loss = self.criterion.needs_confidence or bool(self.confidence_head)
        return self.input_mode == "2ch" or (in_loss and stage in ("fit", "validate"))

    def check_data(self, data: UltrasoundDataModule, stage: Stage) -> None:
        """Check that classes, confidence maps, dimensions and image size of the data match this task."""
        super().check_data(data, stage)
        if self.mc_dropout is not None and stage == "predict" and (self.mirroring or self.members):
            raise InputError(
                "model.mc_dropout cannot be combined with model.mirroring or --ensemble; expected only one of them."
            )
        if data.spatial_dims != self.hparams["spatial_dims"]:
            raise InputError(
                f"The model was created for {self.hparams['spatial_dims']} dimensions, but data.spatial_dims is "
                f"{data.spatial_dims}; set both to the same number."
            )
        for name in ("spatial_size", "patch_size"):
            trained, found = self.hparams[name], getattr(data, name)
            if trained is not None and tuple(trained) != found:
                raise InputError(
                    f"The model was created for data.{name} {list(trained)}, but data.{name} is "
                    f"{None if found is None else list(found)}; expected the same, since the network knows structures "
                    "by their size in voxels."
                )
        size = data.patch_size or data.spatial_size
        if size is not None:
            check_size(self.network, size)

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the network.

        Args:
            inputs: Input channels, ``(B, channels, ...)``.

        Returns:
            Logits of the classes, ``(B, C, ...)``, followed by the logits of the confidence map if there is a
            confidence head, ``(B, C + 1, ...)``.
        """
        logits: Tensor = self.network(inputs)
        return logits

    def network_input(self, batch: Batch) -> Tensor:
        """Concatenate the image and, in ``2ch``, the confidence map."""
        image: Tensor = batch["image"]
        if self.input_mode == "1ch":
            return image
        if "confidence" not in batch:
            raise InputError(
                "The input mode 2ch needs confidence maps, but the batch has none; set data.confidence_mode to native "
                "or on_the_fly."
            )
        return torch.cat([image, self.confidence_scale * batch["confidence"].to(image.dtype)], dim=1)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the configured loss, including the loss of a confidence head.

        Args:
            outputs: Logits, ``(B, channels, ...)``, or those of several levels, ``(B, levels, channels, ...)``, of
                which each counts half as much as the one before, as in nnU-Net.
            batch: The batch.

        Returns:
            The loss, a scalar.
        """
        if outputs.ndim == batch["label"].ndim:
            return self._loss_of_level(outputs, batch)
        levels = outputs.unbind(1)
        weights = [0.5**level for level in range(len(levels))]
        losses = [weight * self._loss_of_level(level, batch) for weight, level in zip(weights, levels, strict=True)]
        return torch.stack(losses).sum() / sum(weights)

    def _loss_of_level(self, outputs: Tensor, batch: Batch) -> Tensor:
        value: Tensor = self.criterion(self.class_logits(outputs), batch["label"], batch.get("confidence"))
        if not self.confidence_head:
            return value
        inside = batch["domain"].bool()
        predicted, target = outputs[:, -1:].float()[inside], batch["confidence"].float()[inside]
        # A patch may contain no insonified pixels, for which the mean would be undefined.
        total = F.binary_cross_entropy_with_logits(predicted, target, reduction="sum")
        return value + self.confidence_head * total / inside.sum().clamp_min(1)

    def log_quality(self, outputs: Tensor, batch: Batch, stage: Literal["val", "test"]) -> None:
        """Log the mean absolute error of the predicted confidence map over insonified pixels."""
        if self.confidence_head and "confidence" in batch:
            inside = batch["domain"].bool()
            difference = (outputs[:, -1:].float().sigmoid() - batch["confidence"].float()).abs()[inside]
            error = difference.sum() / inside.sum().clamp_min(1)
            self.log(f"{stage}/confidence_error", error, sync_dist=True, batch_size=len(batch["case"]))

    def check_sampling(self, settings: MCDropout) -> None:
        """Check that the network supports the settings of MC dropout.

        Args:
            settings: The settings.

        Raises:
            InputError: The network has no dropout, or sliding windows are requested without a patch size.
        """
        check_dropout(self.network)
        if settings.inference == "windows" and self.window is None:
            raise InputError(
                "mc_dropout.inference windows needs data.patch_size, which is not set; expected mc_dropout.inference "
                "whole."
            )

    def sample(
        self, batch: Batch, settings: MCDropout, each: Callable[[Tensor], None] | None = None
    ) -> SampledPrediction:
        """Predict one case several times with active dropout.

        Args:
            batch: A batch of this case.
            settings: Settings of MC dropout.
            each: Function that is called with the class probabilities of every sample, ``(C, ...)``, in order.

        Returns:
            Statistics of the samples, on the network's grid.

        Raises:
            InputError: See :meth:`check_sampling`.
        """
        self.check_sampling(settings)

        def logits(inputs: Tensor) -> Tensor:
            padded = self.class_logits(self(pad_to_fit(self.network, inputs)))
            original: tuple[Any, ...] = (..., *(slice(n) for n in inputs.shape[2:]))
            return padded[original]

        window = self.window if settings.inference == "windows" else None
        return sample_dropout(self.network, logits, self.network_input(batch), batch["case"][0], settings, window, each)

    def predict_step(self, batch: Batch, batch_idx: int) -> Prediction:
        """Predict one case at file resolution.

        Returns:
            The prediction. With MC dropout, ``probabilities`` is the mean of the samples, and there are further maps:
            ``entropy``, ``expected_entropy`` and ``mutual_information`` in nats, ``variance`` and ``votes`` of every
            class, and ``samples``, the class indices of every kept sample.
        """
        settings = self.mc_dropout
        if settings is None:
            return super().predict_step(batch, batch_idx)
        plausibility = torch.zeros(settings.segmentations)
        number_of_classes = len(self.class_names) + 1

        def compute(part: Batch) -> Maps:
            sampled = self.sample(part, settings)
            # Every slab of a volume has the same weight.
            plausibility.add_(sampled.plausibility.cpu())
            maps = {
                name: getattr(sampled, name)[None] for name in ("entropy", "expected_entropy", "mutual_information")
            }
            maps |= {"probabilities": sampled.mean, "variance": sampled.variance, "votes": sampled.votes}
            if settings.segmentations:
                maps["kept"] = sampled.kept.flatten(0, 1)
            if self.confidence_head:
                maps |= {key: value for key, value in self.output_maps(self.outputs(part)).items() if key != "logits"}
            return maps

        def finish(part: NativeFrames) -> NativeFrames:
            maps = {key: values for key, values in part.maps.items() if key not in ("kept", "image_confidence")}
            maps["segmentation"] = most_probable(maps["probabilities"])[None]
            if settings.segmentations:
                kept = part.maps["kept"].reshape(
                    settings.segmentations, number_of_classes, *part.maps["kept"].shape[1:]
                )
                maps["samples"] = torch.stack([most_probable(sample) for sample in kept])
            return NativeFrames(part.frames, maps)

        frames = map(
            finish, self.native_parts(batch, self.in_precision(compute), by_slabs=settings.inference == "windows")
        )
        return self.prediction(batch, frames, (lambda: plausibility) if settings.segmentations else None)

    def output_maps(self, outputs: Tensor) -> Maps:
        """Return the logits of the classes and, if there is a confidence head, the predicted confidence map."""
        maps = super().output_maps(outputs)
        if self.confidence_head:
            maps["predicted_confidence"] = outputs[0, -1:].float().sigmoid()
        return maps

    def _create_optimizer(self, parameters: Iterable[Tensor], learning_rate: float) -> Optimizer:
        """Create the configured optimiser, or Adam with a learning rate."""
        return Adam(parameters, lr=learning_rate) if self.optimizer is None else self.optimizer(parameters)

    def _schedule(self, optimizer: Optimizer) -> Any:
        if self.lr_scheduler is not None:
            return self.lr_scheduler(optimizer)
        hparams = self.hparams
        return create_schedule(hparams["schedule"], optimizer, self.trainer.max_epochs, hparams["warmup_epochs"])

    def _check_schedule(self) -> None:
        """Create a schedule for a dummy parameter, so that invalid settings are reported before the training starts."""
        optimizer = self._create_optimizer([torch.zeros(1)], self.learning_rate)
        if self.lr_scheduler is None:
            create_schedule(self.hparams["schedule"], optimizer, 1, self.hparams["warmup_epochs"])

    def _load_pretrained(self, path: Path) -> None:
        notes = load_pretrained(self, path)
        loaded = len(self.state_dict()) - sum("only in the checkpoint" not in note for note in notes)
        rank_zero_info(f"Loaded {loaded} of {len(self.state_dict())} tensors unchanged from {path}.")
        for note in notes:
            rank_zero_info(f"  {note}")
