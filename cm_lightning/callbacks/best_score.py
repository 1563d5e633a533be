"""Best validation score so far."""

import math
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from cm_lightning.metrics import SCORE


class BestScore(Callback):
    """Callback that logs the highest mean validation Dice so far as ``best/val/dice/mean``, also in resumed runs."""

    def __init__(self) -> None:
        self._best = -math.inf

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the highest score."""
        score = trainer.callback_metrics.get(SCORE)
        if score is not None and not math.isnan(score):
            self._best = max(self._best, float(score))
        if math.isfinite(self._best):
            pl_module.log(f"best/{SCORE}", self._best, rank_zero_only=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the score for the checkpoint."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the score from a checkpoint."""
        self._best = state_dict["best"]
