"""Progress of a training: in the terminal by a bar, in a file by a line for every epoch."""

import sys
import time
from datetime import timedelta

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar

from cm_lightning.metrics import SCORE

# Metrics in the line of an epoch.
SHOWN = ("train/loss", "val/loss", SCORE)


class RunClock:
    """Estimate of the time that is left until the end of a training, from the epochs of this process."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._first = 0

    def start(self, trainer: Trainer) -> None:
        """Start the clock at the first epoch of this process."""
        self._start, self._first = time.monotonic(), trainer.current_epoch

    def left(self, trainer: Trainer, epochs: int) -> str | None:
        """Return the time that is left.

        Args:
            trainer: The trainer.
            epochs: Number of finished epochs.

        Returns:
            Hours, minutes and seconds; None before the end of an epoch, or without a maximum number of epochs.
        """
        if epochs <= self._first or not trainer.max_epochs or trainer.max_epochs < 0:
            return None
        seconds = (time.monotonic() - self._start) / (epochs - self._first) * (trainer.max_epochs - epochs)
        return str(timedelta(seconds=round(seconds)))


class EpochLines(Callback):
    """Callback that prints a line for every epoch if the output is not a terminal, such as a log file of a cluster."""

    def __init__(self) -> None:
        self._clock = RunClock()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._clock.start(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of an epoch, after its validation."""
        if sys.stdout.isatty() or not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        values = [f"{name} {float(metrics[name]):.3g}" for name in SHOWN if name in metrics]
        epochs = trainer.current_epoch + 1
        left = self._clock.left(trainer, epochs)
        parts = [*values, f"{left} left"] if left is not None else values
        total = f" of {trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        print(f"Epoch {epochs}{total}: {', '.join(parts)}", flush=True)


class RunProgressBar(RichProgressBar):
    """Progress bar that also shows the time left until the end of the training, which Lightning's bar does not."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = RunClock()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self._clock.start(trainer)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the values beside the bar, without the number of the run."""
        values = super().get_metrics(trainer, pl_module)
        values.pop("v_num", None)
        left = self._clock.left(trainer, trainer.current_epoch) if trainer.training else None
        return values if left is None else {**values, "left": left}
