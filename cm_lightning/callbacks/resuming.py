"""State of the trainer in checkpoints, completed where that of Lightning does not lead back to the same run."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from cm_lightning.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from cm_lightning.callbacks.trainer_state import fold_folder, is_inside

KEY = "resume_at"
GRADIENTS_KEY = "gradients"


class Resuming(Callback):
    """Callback with which a run continues from any checkpoint as if it had not been interrupted.

    - A checkpoint of a training step is saved before the validation and the end of the epoch that follow this step,
      which Lightning would leave out.
    - A checkpoint between two steps of the optimiser, such as one that is saved every few minutes, contains gradients
      that have been accumulated. Those of several processes differ, and are not stored.
    - Lightning forgets the best score of a run whose folder was moved, so that a worse epoch would replace it.
    """

    def __init__(self) -> None:
        self._follows = "step"
        self._gradients: dict[str, Tensor] = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store what follows after the step."""
        epoch_loop: Any = trainer.fit_loop.epoch_loop
        progress, fetcher = epoch_loop.batch_progress.current, trainer.fit_loop._data_fetcher
        checkpoint[KEY] = "step"
        if trainer.training and fetcher is not None and progress.processed == progress.completed + 1:
            if epoch_loop._should_check_val_fx(fetcher):
                checkpoint[KEY] = "validation"
            elif epoch_loop._num_ready_batches_reached():
                checkpoint[KEY] = "end of epoch"
        elif trainer.training and epoch_loop._num_ready_batches_reached():
            checkpoint[KEY] = "epoch"
        if _accumulates(trainer, pl_module) and trainer.world_size == 1:
            gradients = {name: parameter.grad for name, parameter in pl_module.named_parameters()}
            checkpoint[GRADIENTS_KEY] = {name: value for name, value in gradients.items() if value is not None}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Return to the end of the step, and to the present folder of the checkpoints."""
        if trainer.state.fn != "fit":
            return
        follows = checkpoint.get(KEY, "step")
        if follows in ("validation", "end of epoch"):
            _finish_step(checkpoint["loops"]["fit_loop"])
        if follows == "validation":
            _begin_validation(checkpoint["loops"]["fit_loop"])
        self._follows, self._gradients = follows, checkpoint.get(GRADIENTS_KEY, {})
        folder = fold_folder(trainer)
        if not is_inside(trainer.ckpt_path, folder.path):
            return
        for state in checkpoint.get("callbacks", {}).values():
            if isinstance(state, dict) and Path(state.get("dirpath") or "").name == folder.checkpoints.name:
                _move(state, folder.checkpoints.resolve())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adjust counters that have served to find the point of the checkpoint, and restore gradients."""
        fit_loop: Any = trainer.fit_loop
        epoch_loop = fit_loop.epoch_loop
        total = epoch_loop.val_loop.batch_progress.total
        total.ready = total.started = total.processed
        if self._follows == "end of epoch":
            # Lightning would look for a validation, and counts a step only after it.
            epoch_loop.val_loop._has_run = True
            epoch_loop._batches_that_stepped += 1
        if self._follows == "epoch" and fit_loop.restarting:
            # With a maximum number of steps, Lightning would end the epoch a second time.
            fit_loop.reset_restart_stage()
            fit_loop.epoch_progress.increment_completed()
            fit_loop.epoch_progress.current.completed = fit_loop.epoch_progress.current.processed
            fit_loop._restarting = False
            epoch_loop.restarting = False
        for name, value in self._gradients.items():
            pl_module.get_parameter(name).grad = value.to(pl_module.device)
        self._gradients = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the next epoch from its start."""
        if self._follows == "end of epoch":
            trainer.fit_loop.epoch_loop.restarting = False
        self._follows = "step"


def sort_checkpoints(trainer: Trainer, configured: Checkpoint) -> None:
    """Sort the callbacks that write checkpoints, each of which contains the states of all callbacks before it.

    The best score must be known to all others. The last one must know all others, since training continues from it.

    Args:
        trainer: The trainer.
        configured: The callback that the options ``--checkpoint`` set.
    """

    def order(callback: Callback) -> int:
        if not isinstance(callback, Checkpoint):
            return 0
        if callback is configured or isinstance(callback, BestCheckpoint):
            return 1
        return 3 if isinstance(callback, LastCheckpoint) else 2

    trainer.callbacks.sort(key=order)  # type: ignore[attr-defined]


def _accumulates(trainer: Trainer, pl_module: LightningModule) -> bool:
    """Return whether the optimiser has not yet used all gradients."""
    # Lightning does not accumulate gradients for tasks with several optimisers.
    number = max(trainer.accumulate_grad_batches, getattr(pl_module, "accumulate_grad_batches", 1))
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    return bool(progress.current.ready % number and not progress.is_last_batch)


def _finish_step(loops: dict[str, Any]) -> None:
    """Count the step at whose end the checkpoint was saved."""
    for progress in (loops["epoch_loop.batch_progress"][name] for name in ("total", "current")):
        progress["completed"] = progress["processed"]


def _begin_validation(loops: dict[str, Any]) -> None:
    """Change the state of the loops to the first batch of a validation."""
    validation = loops["epoch_loop.val_loop.batch_progress"]
    # Lightning repeats a validation if a batch has been started, but not processed.
    validation["total"]["completed"] = validation["total"]["processed"]
    validation["total"]["ready"] = validation["total"]["started"] = validation["total"]["processed"] + 1
    validation["current"] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    validation["is_last_batch"] = False


def _move(state: dict[str, Any], now: Path) -> None:
    """Change the paths in the state of a callback that writes checkpoints to the present folder."""
    before = Path(state["dirpath"])

    def moved(path: str) -> str:
        return str(now / Path(path).relative_to(before)) if path and Path(path).is_relative_to(before) else path

    state["dirpath"] = str(now)
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = moved(state.get(key, ""))
    state["best_k_models"] = {moved(path): score for path, score in state.get("best_k_models", {}).items()}
