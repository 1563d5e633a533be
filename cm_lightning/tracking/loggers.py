"""Loggers that go on where an interrupted run stopped, and never stop a run themselves."""

import csv
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from cm_lightning.runs import FoldFolder
from cm_lightning.tracking.policy import RunIdentity, WandbSettings, start_run


class ResumableCSVLogger(CSVLogger):
    """Lightning's CSV logger, keeping the rows that a run's folder already has.

    Lightning's own deletes them, so that a resumed run would lose its past.

    Args:
        folder: The run's folder; ``metrics.csv`` is written there.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder, name="", version="")
        self._file = FoldFolder(Path(folder)).metrics

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(self._file.parent)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer, holding the earlier rows until they are written again."""
        if self._experiment is None:
            rows: list[dict[str, Any]] = []
            if self._file.is_file():
                with self._file.open(newline="") as file:
                    rows = [{key: value for key, value in row.items() if value != ""} for row in csv.DictReader(file)]
                self._file.unlink()
            with warnings.catch_warnings():
                # Lightning warns that it will delete what was just read and is written again.
                warnings.filterwarnings("ignore", message=".*logs directory.*exists and is not empty.*")
                writer = super().experiment
            writer.metrics.extend(rows)
            return writer
        return self._experiment


class WandbRunLogger(WandbLogger):
    """Lightning's W&B logger for a run that has a folder; what fails in W&B is said once and does not stop training.

    Args:
        settings: Where the run is shown.
        identity: What it is called.
    """

    def __init__(self, settings: WandbSettings, identity: RunIdentity) -> None:
        super().__init__(name=identity.name, save_dir=identity.folder.absolute(), project=settings.project)
        self.settings = settings
        self.identity = identity

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, started where it is first needed."""
        if self._experiment is None:
            self._experiment = start_run(self.settings, self.identity)
            self._experiment.define_metric("trainer/global_step")
            self._experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log values or media.

        Args:
            metrics: By name.
            step: Training step that they belong to.
        """
        self._attempt(lambda: super(WandbRunLogger, self).log_metrics(metrics, step))

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Leave it to :meth:`log_config`, which knows all settings and not the model's alone."""

    @rank_zero_only
    def log_config(self, config: dict[str, Any]) -> None:
        """Show the run's settings.

        Args:
            config: All of them, nested.
        """
        self._attempt(lambda: self.experiment.config.update(config, allow_val_change=True))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run, so that its file is whole and another one can begin in this process.

        Args:
            status: "success" or how it failed.
        """
        run, self._experiment = self._experiment, None
        if run is not None:
            self._attempt(lambda: run.finish(exit_code=0 if status == "success" else 1))

    def _attempt(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:  # a full disk or a lost service must not cost a training
            import wandb

            warnings.warn(f"W&B is left out from here on: {error}", stacklevel=3)
            self._experiment = wandb.init(mode="disabled", reinit="create_new")
