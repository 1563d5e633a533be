"""Learning rate schedules, which are updated once per epoch."""

import math
from typing import Literal, get_args

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from cm_lightning.errors import InputError

ScheduleName = Literal["constant", "cosine", "polynomial", "plateau"]


def create_schedule(
    name: ScheduleName, optimizer: Optimizer, epochs: int | None, warmup_epochs: int = 0
) -> LambdaLR | ReduceLROnPlateau:
    """Create a learning rate schedule.

    Args:
        name: ``constant``; ``cosine``, a cosine decay to 0; ``polynomial``, the decay ``(1 - epoch / epochs) ** 0.9``
            of nnU-Net; or ``plateau``, which halves the learning rate if the monitored value has not increased for 10
            epochs.
        optimizer: The optimiser.
        epochs: Number of training epochs; required by ``cosine`` and ``polynomial``.
        warmup_epochs: Number of epochs of a linear warm-up.

    Returns:
        The schedule.

    Raises:
        InputError: The name is unknown, the number of epochs is missing, or the warm-up is negative or combined with
            ``plateau``.

    References:
        Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, for the cosine decay.
        Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation",
        Nature Methods 2021, for the polynomial decay.
    """
    if name not in get_args(ScheduleName):
        raise InputError(f"Unknown schedule {name!r}; expected one of {', '.join(get_args(ScheduleName))}.")
    if warmup_epochs < 0 or (name == "plateau" and warmup_epochs):
        raise InputError(
            "model.warmup_epochs must not be negative, and must be 0 with the schedule 'plateau'; found "
            f"{warmup_epochs} with {name!r}."
        )
    if name == "plateau":
        return ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=10)
    if name in ("cosine", "polynomial") and (epochs is None or epochs < 1):
        raise InputError(f"The schedule {name} needs trainer.max_epochs of at least 1, found {epochs}.")

    def factor(epoch: int) -> float:
        warmup = min(1.0, (epoch + 1) / (warmup_epochs + 1))
        # If a run is resumed with fewer epochs, the current epoch may exceed them.
        remaining = max(0.0, 1 - epoch / epochs) if epochs and epochs > 0 else 1.0
        match name:
            case "cosine":
                return warmup * 0.5 * (1 - math.cos(math.pi * remaining))
            case "polynomial":
                return warmup * remaining**0.9
            case _:
                return warmup

    return LambdaLR(optimizer, factor)


def set_learning_rate(schedule: LambdaLR) -> None:
    """Set the learning rates of an optimiser to those of its schedule at the current epoch.

    Args:
        schedule: Schedule with a state that was loaded from a checkpoint, possibly of a run with another number of
            epochs.
    """
    groups = schedule.optimizer.param_groups
    for group, rate, factor in zip(groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = rate * factor(schedule.last_epoch)
