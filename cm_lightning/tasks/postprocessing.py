"""Post-processing of segmentations: the largest connected component, for the classes for which it raises Dice."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cm_lightning.errors import InputError
from cm_lightning.metrics.components import keep_largest
from cm_lightning.metrics.segmentation import dice_per_class
from cm_lightning.tasks.distributed import gather_cases

CHECKPOINT_KEY = "largest_component_gain"


class LargestComponent:
    """Keep only the largest connected component of those classes whose validation Dice this raises.

    Every validation measures each case with and without, whether or not post-processing is enabled, so that a later
    prediction from the checkpoint can enable it.

    Args:
        class_names: Names of the classes 1, 2, ...
        enabled: Whether :meth:`__call__` changes segmentations at all.

    Attributes:
        gain: For every class, how much it adds to the mean Dice of the last validation; None before a validation.
    """

    def __init__(self, class_names: Sequence[str], enabled: bool = False) -> None:
        self.class_names = list(class_names)
        self.enabled = enabled
        self.gain: dict[str, float] | None = None
        # Every case's Dice per class, without post-processing and with it.
        self._dice: dict[str, tuple[list[float], list[float]]] = {}

    def add_case(self, case: str, prediction: Tensor, label: Tensor) -> None:
        """Measure the Dice of one validation case with and without post-processing.

        Args:
            case: The case's id.
            prediction: Class indices, ``(depth, lateral[, elevation])``.
            label: Class indices of the same shape.
        """
        n_classes = len(self.class_names) + 1
        largest = keep_largest(prediction, range(1, n_classes))
        self._dice[case] = (dice_per_class(prediction, label, n_classes), dice_per_class(largest, label, n_classes))

    def end_validation(self) -> Tensor:
        """Average the cases of all processes, set :attr:`gain` and begin anew.

        Returns:
            Dice of the classes 1, 2, ... without post-processing, mean over cases, ``(C - 1,)``, float64; NaN for a
            class that no case has.
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
        """Indices of the classes whose largest component is kept; none where post-processing is disabled.

        Raises:
            InputError: Post-processing is enabled, and no validation says for which classes.
        """
        if not self.enabled:
            return []
        if self.gain is None:
            raise InputError(
                "model.largest_component chooses its classes by the validation of the checkpoint's epoch, and this "
                "checkpoint does not hold it; expected one that fit wrote after a validation."
            )
        return [i for i, name in enumerate(self.class_names, start=1) if self.gain[name] > 0]

    def __call__(self, segmentation: Tensor) -> Tensor:
        """Set all but the largest component of the chosen :attr:`classes` to background.

        Args:
            segmentation: Class indices, ``(depth, lateral[, elevation])``.

        Returns:
            Class indices of the same shape and dtype; the same tensor where no class is chosen.

        Raises:
            InputError: Post-processing is enabled, and no validation says for which classes.
        """
        return keep_largest(segmentation, self.classes)

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Write the gain to a checkpoint, as its entry ``largest_component_gain``."""
        checkpoint[CHECKPOINT_KEY] = self.gain

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Read the gain at the checkpoint's epoch; None from a checkpoint without the entry."""
        self.gain = checkpoint.get(CHECKPOINT_KEY)
