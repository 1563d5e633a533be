"""Learning-rate schedules by name, stepped once an epoch."""

import math
from typing import Literal, get_args

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from cm_lightning.errors import InputError

ScheduleName = Literal["constant", "cosine", "polynomial", "plateau"]


def create_schedule(
    name: ScheduleName, optimizer: Optimizer, epochs: int | None, warmup_epochs: int = 0
) -> LambdaLR | ReduceLROnPlateau:
    """Build a schedule of the learning rate over epochs.

    Args:
        name: ``constant``; ``cosine``, half a wave down to 0; ``polynomial``, ``(1 - epoch / epochs) ** 0.9`` as in
            nnU-Net; or ``plateau``, halved when the monitored value has not risen for 10 epochs.
        optimizer: Whose rate.
        epochs: Epochs of the whole training; needed by cosine and polynomial.
        warmup_epochs: Epochs over which the rate first rises linearly.

    Returns:
        The schedule.

    Raises:
        InputError: Unknown name, no number of epochs where one is needed, a warm-up that does not fit.
    """
    if name not in get_args(ScheduleName):
        raise InputError(f"Unknown schedule {name!r}; expected one of {', '.join(get_args(ScheduleName))}.")
    if warmup_epochs < 0 or (name == "plateau" and warmup_epochs):
        raise InputError(
            f"warmup_epochs must be at least 0, and 0 with the schedule plateau; found {warmup_epochs} with {name}."
        )
    if name == "plateau":
        return ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=10)
    if name in ("cosine", "polynomial") and (epochs is None or epochs < 1):
        raise InputError(f"The schedule {name} ends with the training and needs trainer.max_epochs, found {epochs}.")

    def factor(epoch: int) -> float:
        rising = min(1.0, (epoch + 1) / (warmup_epochs + 1))
        # A resumed training may have a last epoch less than it has done.
        left = max(0.0, 1 - epoch / epochs) if epochs and epochs > 0 else 1.0
        match name:
            case "cosine":
                return rising * 0.5 * (1 - math.cos(math.pi * left))
            case "polynomial":
                return rising * left**0.9
            case _:
                return rising

    return LambdaLR(optimizer, factor)


def set_rate(schedule: LambdaLR) -> None:
    """Set an optimiser's rate to that of its schedule at the epoch that the schedule has reached.

    Args:
        schedule: A schedule whose state was loaded, perhaps of another number of epochs.
    """
    groups = schedule.optimizer.param_groups
    for group, rate, factor in zip(groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = rate * factor(schedule.last_epoch)
