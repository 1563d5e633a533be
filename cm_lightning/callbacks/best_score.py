"""The best validation so far, beside the last."""

import math
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from cm_lightning.metrics import SCORE


class BestScore(Callback):
    """Log the highest mean Dice of validation so far as ``best/val/dice/mean``; a resumed run goes on from its own."""

    def __init__(self) -> None:
        self._best = -math.inf

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log it."""
        score = trainer.callback_metrics.get(SCORE)
        if score is not None and not math.isnan(score):
            self._best = max(self._best, float(score))
        if math.isfinite(self._best):
            pl_module.log(f"best/{SCORE}", self._best, rank_zero_only=True)

    def state_dict(self) -> dict[str, Any]:
        """Keep the score in checkpoints."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's score."""
        self._best = state_dict["best"]
