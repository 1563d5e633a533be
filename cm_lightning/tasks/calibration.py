"""Calibration of probabilities: temperature scaling, fitted in every validation."""

from typing import Any

import torch
from torch import Tensor

from cm_lightning.errors import InputError
from cm_lightning.tasks.distributed import gather_cases
from cm_lightning.uncertainty import draw_voxels, fit_temperature

CHECKPOINT_KEY = "temperature"


class TemperatureScaling:
    """Divide logits by the temperature that suits the validation's voxels best (Guo et al. 2017).

    Probabilities change; the most probable class of a voxel does not.

    Args:
        enabled: Whether validations fit a temperature and predictions apply it.

    Attributes:
        temperature: Temperature of the last validation; None where none was fitted.
    """

    def __init__(self, enabled: bool = False) -> None:
        self.enabled = enabled
        self.temperature: float | None = None
        # Every case's logits and labels at the voxels to which the temperature is fitted.
        self._voxels: dict[str, tuple[Tensor, Tensor]] = {}

    def add_case(self, case: str, logits: Tensor, label: Tensor, domain: Tensor) -> None:
        """Draw voxels of one validation case; none where scaling is disabled.

        Args:
            case: The case's id.
            logits: Logits of the classes, ``(C, depth, lateral[, elevation])``.
            label: Class indices, ``(depth, lateral[, elevation])``.
            domain: Which voxels are insonified, of that shape.
        """
        if self.enabled:
            self._voxels[case] = draw_voxels(logits, label, domain.bool())

    def end_validation(self) -> float | None:
        """Fit :attr:`temperature` to the voxels of all processes and begin anew.

        Returns:
            The temperature; None where scaling is disabled, as that of an earlier checkpoint no longer holds.
        """
        self.temperature = self._fit() if self.enabled else None
        return self.temperature

    @property
    def divisor(self) -> float:
        """Number by which logits are divided; 1 where scaling is disabled.

        Raises:
            InputError: Scaling is enabled, and no temperature was fitted.
        """
        if not self.enabled:
            return 1.0
        if self.temperature is None:
            raise InputError(
                "model.temperature_scaling takes the temperature of the checkpoint's epoch, and this checkpoint does "
                "not hold one; expected one that fit wrote with model.temperature_scaling true."
            )
        return self.temperature

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Write the temperature to a checkpoint, as its entry ``temperature``."""
        checkpoint[CHECKPOINT_KEY] = self.temperature

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Read the temperature at the checkpoint's epoch; None from a checkpoint without the entry."""
        self.temperature = checkpoint.get(CHECKPOINT_KEY)

    def _fit(self) -> float:
        cases = gather_cases(self._voxels)
        self._voxels.clear()
        # Sorted, so that the sums, and with them the last digit, do not depend on the number of processes.
        logits, labels = zip(*(cases[case] for case in sorted(cases)), strict=True)
        return fit_temperature(torch.cat(logits), torch.cat(labels))
