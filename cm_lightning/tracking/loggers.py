"""Loggers that continue the logs of interrupted runs. Errors of W&B do not stop the training run."""

import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from cm_lightning.tracking.metrics_file import AppendingWriter
from cm_lightning.tracking.policy import RunIdentity, WandbSettings, resolve_mode, start_run


class ResumableCSVLogger(CSVLogger):
    """CSV logger of Lightning that appends to the rows of a resumed run, which Lightning would delete.

    Args:
        folder: Folder of the run, in which ``metrics.csv`` is written.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder, name="", version="")
        self._folder = Path(folder)

    @property
    def log_dir(self) -> str:
        """Folder of the run."""
        return str(self._folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Writer of the metrics, which appends to the existing rows."""
        if self._experiment is None:
            self._experiment = AppendingWriter(self._folder)
        return self._experiment


class WandbRunLogger(WandbLogger):
    """W&B logger of Lightning that warns once about errors of W&B and does not stop the training run.

    Args:
        settings: Settings of W&B.
        identity: Name, group and folder of the run.
    """

    def __init__(self, settings: WandbSettings, identity: RunIdentity) -> None:
        super().__init__(name=identity.name, save_dir=identity.folder.absolute(), project=settings.project)
        self.settings = settings
        self.identity = identity
        self._has_failed = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, which is started at first use."""
        if self._experiment is None:
            self._experiment = start_run(self.settings, self.identity)
            self._experiment.define_metric("trainer/global_step")
            self._experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log values or media.

        Args:
            metrics: Values by key.
            step: Training step.
        """
        self.attempt(lambda: super(WandbRunLogger, self).log_metrics(metrics, step))

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Do nothing, because :meth:`log_config` logs all settings and not only those of the model."""

    @rank_zero_only
    def log_config(self, config: dict[str, Any]) -> None:
        """Log the settings of the run.

        Args:
            config: All settings, nested.
        """
        self.attempt(lambda: self.experiment.config.update(config, allow_val_change=True))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Finish the run, so that its file is complete and this process can start another run.

        Args:
            status: "success", or another status of Lightning for failures.
        """
        run, self._experiment = self._experiment, None
        if run is not None:
            self.attempt(lambda: run.finish(exit_code=0 if status == "success" else 1))

    @property
    def shows_patients(self) -> bool:
        """Whether pictures of cases are logged: in offline runs unless switched off, online only if asked for."""
        online = resolve_mode(self.settings)[0] == "online"
        return bool(self.settings.pictures) if online else self.settings.pictures is not False

    def attempt(self, call: Callable[[], Any]) -> None:
        """Call a function of W&B, after whose failure W&B is disabled and the training continues.

        Args:
            call: The function.
        """
        if self._has_failed:
            return
        try:
            call()
        except Exception as error:  # Errors such as a full disk must not stop the run.
            import wandb

            self._has_failed = True
            if isinstance(error, ConnectionError):  # W&B would print it once more at the end of the process
                with suppress(Exception):
                    wandb.teardown()
            warnings.warn(f"W&B logging is disabled because of an error: {error}", stacklevel=3)
            self._experiment = wandb.init(mode="disabled", reinit="create_new")
