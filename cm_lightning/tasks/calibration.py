"""Temperature scaling, which is fitted in every validation."""

from typing import Any

import torch
from torch import Tensor

from cm_lightning.errors import InputError
from cm_lightning.tasks.distributed import gather_cases
from cm_lightning.uncertainty import draw_voxels, fit_temperature

CHECKPOINT_KEY = "temperature"


class TemperatureScaling:
    """Temperature scaling of logits.

    The temperature that maximises the likelihood of the validation labels is fitted in every validation. It changes
    probabilities, but not the most probable class.

    Args:
        enabled: Whether validations fit a temperature and predictions apply it.

    Attributes:
        temperature: Temperature of the last validation; None if none was fitted.

    References:
        Guo et al., "On calibration of modern neural networks", ICML 2017.
    """

    def __init__(self, enabled: bool = False) -> None:
        self.enabled = enabled
        self.temperature: float | None = None
        # Logits and labels of the voxels of every case to which the temperature is fitted.
        self._voxels: dict[str, tuple[Tensor, Tensor]] = {}

    def add_case(self, case: str, logits: Tensor, label: Tensor, domain: Tensor) -> None:
        """Draw voxels of one validation case, if scaling is enabled.

        Args:
            case: Id of the case.
            logits: Logits of all classes, ``(C, depth, lateral[, elevation])``.
            label: Class indices, ``(depth, lateral[, elevation])``.
            domain: Insonified voxels with a known label, bool, ``(depth, lateral[, elevation])``.
        """
        if self.enabled:
            self._voxels[case] = draw_voxels(logits, label, domain)

    def end_validation(self) -> float | None:
        """Fit :attr:`temperature` to the voxels of all processes, and remove these voxels.

        Returns:
            The temperature; None if scaling is disabled, since the temperature of an earlier checkpoint is outdated.
        """
        self.temperature = self._fit() if self.enabled else None
        return self.temperature

    @property
    def divisor(self) -> float:
        """Number by which logits are divided: the temperature, or 1 if scaling is disabled.

        Raises:
            InputError: Scaling is enabled, but no temperature was fitted.
        """
        if not self.enabled:
            return 1.0
        if self.temperature is None:
            raise InputError(
                "model.temperature_scaling needs the temperature of the checkpoint, but this checkpoint contains none; "
                "expected a checkpoint that fit wrote with model.temperature_scaling true."
            )
        return self.temperature

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Write the temperature to the entry ``temperature`` of a checkpoint."""
        checkpoint[CHECKPOINT_KEY] = self.temperature

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Read the temperature of a checkpoint; None if the checkpoint has no such entry."""
        self.temperature = checkpoint.get(CHECKPOINT_KEY)

    def _fit(self) -> float:
        cases = gather_cases(self._voxels)
        self._voxels.clear()
        # Sorting makes the sums independent of the number of processes, up to the last digit.
        logits, labels = zip(*(cases[case] for case in sorted(cases)), strict=True)
        return fit_temperature(torch.cat(logits), torch.cat(labels))
