"""Post-processing that keeps the largest connected component of those classes for which this increases the Dice."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cm_lightning.data.ignored import known_only
from cm_lightning.errors import InputError
from cm_lightning.metrics.components import keep_largest
from cm_lightning.metrics.segmentation import dice_per_class
from cm_lightning.tasks.distributed import gather_cases

CHECKPOINT_KEY = "largest_component_gain"


class LargestComponent:
    """Post-processing that keeps the largest connected component of those classes for which this increases the Dice.

    Every validation measures each case with and without post-processing, also if it is disabled, so that it can be
    enabled later for predictions with the checkpoint.

    Args:
        class_names: Names of the classes 1, 2, ...
        enabled: Whether :meth:`__call__` changes segmentations.

    Attributes:
        gain: Increase of the mean Dice of every class in the last validation; None before the first validation.
    """

    def __init__(self, class_names: Sequence[str], enabled: bool = False) -> None:
        self.class_names = list(class_names)
        self.enabled = enabled
        self.gain: dict[str, float] | None = None
        # Dice of every case per class, without and with post-processing.
        self._dice: dict[str, tuple[list[float], list[float]]] = {}

    def add_case(self, case: str, prediction: Tensor, label: Tensor) -> None:
        """Measure the Dice of one validation case with and without post-processing.

        Args:
            case: Id of the case.
            prediction: Class indices, ``(depth, lateral[, elevation])``.
            label: Class indices, ``(depth, lateral[, elevation])``.
        """
        n_classes = len(self.class_names) + 1
        largest = keep_largest(prediction, range(1, n_classes))
        label, prediction, largest = known_only(label, prediction, largest)
        self._dice[case] = (dice_per_class(prediction, label, n_classes), dice_per_class(largest, label, n_classes))

    def end_validation(self) -> Tensor:
        """Average the cases of all processes, set :attr:`gain`, and remove the cases.

        Returns:
            Mean Dice over cases of the classes 1, 2, ... without post-processing, ``(C - 1,)``, float64; NaN for
            classes that are in no case.
        """
        cases = gather_cases(self._dice)
        self._dice.clear()
        values = torch.tensor(list(cases.values()), dtype=torch.float64)  # (cases, 2, classes)
        plain, largest = values.nanmean(dim=0)
        gains = (largest - plain).nan_to_num().tolist()
        self.gain = dict(zip(self.class_names, gains, strict=True))
        return plain

    @property
    def classes(self) -> list[int]:
        """Indices of the classes with post-processing; empty if it is disabled.

        Raises:
            InputError: Post-processing is enabled, but there was no validation that determines the classes.
        """
        if not self.enabled:
            return []
        if self.gain is None:
            raise InputError(
                "model.largest_component needs the validation results of the checkpoint, but this checkpoint contains "
                "none; expected a checkpoint that fit wrote after a validation."
            )
        return [i for i, name in enumerate(self.class_names, start=1) if self.gain[name] > 0]

    def __call__(self, segmentation: Tensor) -> Tensor:
        """Set all but the largest component of :attr:`classes` to background.

        Args:
            segmentation: Class indices, ``(depth, lateral[, elevation])``.

        Returns:
            Class indices of the same shape and dtype. Without classes, this is the same tensor.

        Raises:
            InputError: Post-processing is enabled, but there was no validation that determines the classes.
        """
        return keep_largest(segmentation, self.classes)

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Write the gain to the entry ``largest_component_gain`` of a checkpoint."""
        checkpoint[CHECKPOINT_KEY] = self.gain

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Read the gain of a checkpoint; None if the checkpoint has no such entry."""
        self.gain = checkpoint.get(CHECKPOINT_KEY)
