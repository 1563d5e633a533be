"""The command line: Lightning's fit, validate, test and predict, and the project's own commands."""

import contextlib
import io
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import yaml
from jsonargparse import ArgumentParser
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_only
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy

from cm_lightning import __version__
from cm_lightning.callbacks import (
    AugmentationPicture,
    BestScore,
    CaseTable,
    ConfidenceCost,
    ConfusionPicture,
    PredictionWriter,
    ReliabilityPicture,
    ResultTable,
    SegmentationPictures,
    Throughput,
    UncertaintyPictures,
    ValidationMetrics,
    WorstCasePictures,
)
from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.crossval import crossval
from cm_lightning.data import Phantom, UltrasoundDataModule
from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.evaluation.dashboard import dashboard
from cm_lightning.evaluation.report import report
from cm_lightning.evaluation.variability import variability
from cm_lightning.loggers import ResumableCSVLogger, WandbRunLogger
from cm_lightning.settings import RUN_SPECIFIC, flatten
from cm_lightning.sweeps import sweep_experiment
from cm_lightning.tasks import BaseTask, DeepAtlasTask
from cm_lightning.tasks.base import Stage
from cm_lightning.tracking import RunIdentity, WandbSettings, resolve_mode
from cm_lightning.wandb_sync import sync

DESCRIPTION = "Segmentation of ultrasound, guided by confidence maps, that knows where it can be trusted."
OWN_COMMANDS_HELP = """further commands:
  crossval      run all folds, one process each, and evaluate them together
  report RUN..  tables, statistics and figures of finished runs, on one page
  variability   where networks hesitate and raters differ, and whether confidence predicts it
  sync RUN..    upload runs that W&B could not be told of
  dashboard     build the workspace of Weights & Biases that shows a project's runs
  phantom DIR   write a synthetic ultrasound data set whose truth is known
"""


def write_phantom(words: Sequence[str]) -> None:
    """Write a synthetic ultrasound data set whose truth is known.

    Args:
        words: Command line after ``phantom``.
    """
    parser = ArgumentParser(prog="cm_lightning phantom", description="Write a synthetic ultrasound data set.")
    parser.add_argument("root", type=Path, help="Folder to write to.")
    parser.add_class_arguments(Phantom)
    config = parser.parse_args(list(words))
    root = config.pop("root")
    phantom = Phantom(**parser.instantiate_classes(config).as_dict())
    phantom.write(root)
    print(f"Wrote {phantom.patients} {phantom.variant} phantoms to {root}.")
    if phantom.raters is not None:
        labels = phantom.raters.raters * phantom.raters.repeats
        print(f"Each has {labels} labels of raters in {root / phantom.raters.folder}.")


def run_crossval(words: Sequence[str]) -> None:
    """Run the folds of a configuration and evaluate them together.

    Args:
        words: Command line after ``crossval``.
    """
    crossval(words, resolve_settings)


def run_dashboard(words: Sequence[str]) -> None:
    """Build the workspace of Weights & Biases that shows a project's runs.

    Args:
        words: Command line after ``dashboard``.
    """
    dashboard(words, resolve_settings)


def resolve_settings(words: list[str]) -> dict[str, Any]:
    """Find the settings that a command line of ``fit`` stands for, without running it.

    Args:
        words: Command line after ``fit``.

    Returns:
        All settings, with dotted names.

    Raises:
        InputError: The command line is not one that fit takes.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            command = ["fit", *words, "--print_config"]
            _run(command, command)
    except SystemExit as end:
        if end.code:
            raise InputError("fit does not take these settings (see above).") from None
    settings = flatten(yaml.safe_load(printed.getvalue()))
    # The parser prints before fit renames.
    return settings | {"experiment": sweep_experiment(settings["experiment"])}


OWN_COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "phantom": write_phantom,
    "crossval": run_crossval,
    "report": report,
    "sync": sync,
    "variability": variability,
    "dashboard": run_dashboard,
}


# What every run has beside the callbacks that have settings of their own.
CALLBACKS = (
    AugmentationPicture,
    BestScore,
    ConfidenceCost,
    Throughput,
    ValidationMetrics,
    ResultTable,
    WorstCasePictures,
    CaseTable,  # shows what WorstCasePictures has drawn
    ReliabilityPicture,
    ConfusionPicture,
)


class RunConfig(SaveConfigCallback):
    """Write the resolved settings to the run's folder, and show those of a training in W&B."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Show the settings, nested."""
        settings = yaml.safe_load(self.parser.dump(self.config, skip_none=False, skip_link_targets=False))
        for logger in trainer.loggers:
            if isinstance(logger, WandbRunLogger) and stage == "fit":
                logger.log_config(settings)


class CommandLine(LightningCLI):
    """LightningCLI with one folder a run: ``<output_dir>/<experiment>/fold<k>``.

    Args:
        stage: The subcommand that is called, where it is known; the parsers of the others are not built.
        **kwargs: Those of LightningCLI.
    """

    def __init__(self, stage: Stage | None, **kwargs: Any) -> None:
        self._stage = stage
        super().__init__(**kwargs)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is static
        """Name the subcommands, each with the arguments that are not for the command line."""
        commands = LightningCLI.subcommands()
        return commands if self._stage is None else {self._stage: commands[self._stage]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's folder, the callbacks that are always there, and what the model takes from the data."""
        parser.add_argument("--experiment", type=str, default="experiment", help="Name of the experiment.")
        parser.add_argument("--output_dir", type=Path, default=Path("outputs"), help="Where experiments are kept.")
        parser.add_argument("--overwrite", type=bool, default=False, help="Replace an earlier run of this fold.")
        parser.add_class_arguments(WandbSettings, "wandb")
        parser.add_argument("--tensorboard", type=bool, default=False, help="Write files for TensorBoard, too.")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/dice/mean",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
                "model": {"class_path": "cm_lightning.tasks.SegmentationTask"},
            }
        )
        parser.add_lightning_class_args(SegmentationPictures, "pictures")
        parser.add_lightning_class_args(UncertaintyPictures, "uncertainty")
        parser.add_lightning_class_args(PredictionWriter, "prediction")
        # On its own, so that a configuration can change two of its settings beside a shared file of the data's.
        parser.add_class_arguments(ConfidenceMapSolver, "solver")
        parser.link_arguments("solver", "data.solver", apply_on="instantiate")
        for name in ("classes", "spatial_dims", "spatial_size", "patch_size"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, then settle the run's folder and the checkpoint before anything is built."""
        super().parse_arguments(parser, args)
        subcommand = self.config["subcommand"]
        config = self.config[subcommand]
        config.experiment = sweep_experiment(config.experiment)
        folder = Path(config.output_dir) / config.experiment / f"fold{config.data.fold}"
        config.ckpt_path = find_checkpoint(subcommand, config.ckpt_path, folder)
        if subcommand == "fit" and config.ckpt_path is None and not config.trainer.fast_dev_run:
            _clear(folder, config.overwrite)
        config.checkpoint.dirpath = str(folder / "checkpoints")
        config.trainer.default_root_dir = str(folder)
        if subcommand == "test":
            # The callback ResultTable prints a table of its own, with spread and units.
            config.verbose = False
        # What a run was trained with stays beside what it was tested with.
        self.save_config_kwargs["config_filename"] = (
            "config.yaml" if subcommand == "fit" else f"{subcommand}_config.yaml"
        )
        # Only a checkpoint can bring other settings than these.
        self._asked = {} if config.ckpt_path is None else self._settings()

    def before_instantiate_classes(self) -> None:
        """Say which settings hold where a checkpoint brings its own."""
        subcommand = self.config["subcommand"]
        if self.config[subcommand].ckpt_path is None:
            return
        # Lightning has by now replaced the model's settings with those in the checkpoint.
        settings = self._settings()
        for key, value in settings.items():
            if self._asked.get(key, value) != value:
                rank_zero_info(f"{key} is {value!r}, as in the checkpoint; {self._asked[key]!r} was not taken.")
        stored = Path(settings["trainer.default_root_dir"]) / "config.yaml"
        if subcommand == "fit" and stored.is_file():
            before = flatten(yaml.safe_load(stored.read_text()))
            for key in sorted(before.keys() & settings.keys() - RUN_SPECIFIC):
                if before[key] != settings[key]:
                    rank_zero_info(f"Resumed with {key} {settings[key]!r}; the run was started with {before[key]!r}.")

    def instantiate_classes(self) -> None:
        """Build everything; what a constructor says of its arguments is not wrapped in the parser's own words."""
        config = self.config[self.config["subcommand"]]
        arguments = config.model.init_args
        init_from = arguments.get("init_from")
        if config.ckpt_path is not None and init_from is not None:
            # The checkpoint brings all weights; those that training once began with may be gone.
            arguments.init_from = None
        try:
            super().instantiate_classes()
        except ValueError as error:
            if isinstance(error.__cause__, InputError):
                raise error.__cause__ from None
            raise
        if init_from is not None:
            arguments.init_from = init_from  # the run's settings still say where its weights began
        self.datamodule.pairs_per_case = self.model.pairs_per_case
        self.model.refuse_data(self.datamodule, self.config["subcommand"])

    def _settings(self) -> dict[str, Any]:
        """All settings as they are written to files, with dotted names."""
        subcommand = self.config["subcommand"]
        dumped = self.parser.dump(self.config, skip_none=False, skip_link_targets=False)
        return flatten(yaml.safe_load(dumped)[subcommand])

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add what every run has, and what Lightning leaves to a task of manual optimisation.

        Every run has the checkpoint of the last epoch, and the CSV logger before W&B and the configured ones; with
        ``trainer.logger false`` it has none. For a task that takes its steps itself, clipping and accumulation of
        gradients go from the trainer's settings to the task, and several processes expect that not all parameters get a
        gradient in every step.
        """
        settings = self._get(self.config_init, "trainer")
        folder = Path(settings["default_root_dir"])
        loggers = self._loggers(folder, settings["logger"])
        task = self._get(self.config_init, "model")

        def build(**more: Any) -> Trainer:
            callbacks = [*(settings["callbacks"] or []), last_checkpoint(folder)]
            return super(CommandLine, self).instantiate_trainer(
                **kwargs, **more, logger=loggers or False, callbacks=callbacks
            )

        if not isinstance(task, DeepAtlasTask):
            return build()
        for name, unset in (
            ("gradient_clip_val", None),
            ("gradient_clip_algorithm", None),
            ("accumulate_grad_batches", 1),
        ):
            if settings[name] != unset:
                setattr(task, name, settings[name])
        kwargs |= {"gradient_clip_val": None, "gradient_clip_algorithm": None, "accumulate_grad_batches": 1}
        trainer = build()
        if settings["strategy"] == "auto" and isinstance(trainer.strategy, DDPStrategy):
            return build(strategy="ddp_find_unused_parameters_true")
        return trainer

    def _loggers(self, folder: Path, configured: Any) -> list[Logger]:
        """The run's loggers; Lightning takes the folder of the first as the run's own."""
        if configured is False:
            return []
        loggers: list[Logger] = [ResumableCSVLogger(folder)]
        wandb_settings: WandbSettings = self._get(self.config_init, "wandb")
        if self.subcommand in ("fit", "test") and resolve_mode(wandb_settings)[0] != "disabled":
            name, group = f"{folder.parent.name}/{folder.name}", folder.parent.name
            loggers.append(WandbRunLogger(wandb_settings, RunIdentity(folder, name, group, "fold")))
        if self._get(self.config_init, "tensorboard"):
            loggers.append(TensorBoardLogger(folder, name="tensorboard", version=""))
        if isinstance(configured, list):
            return [*loggers, *configured]
        return loggers if isinstance(configured, bool) or configured is None else [*loggers, configured]


def last_checkpoint(folder: Path) -> ModelCheckpoint:
    """Keep ``last.ckpt`` after every epoch, whether or not it was the best: what an interrupted run resumes from.

    Args:
        folder: The run's folder.

    Returns:
        The callback. (ModelCheckpoint's own ``save_last`` writes it only when the best changes.)
    """
    return ModelCheckpoint(
        folder / "checkpoints", filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )


def find_checkpoint(subcommand: str, ckpt_path: Any, folder: Path) -> str | None:
    """Turn ``last``, ``best`` or a path into the file of a checkpoint.

    Args:
        subcommand: "fit", "validate", "test" or "predict".
        ckpt_path: What the user gave.
        folder: The run's folder.

    Returns:
        The file, or None for a fit from the start.

    Raises:
        MissingInputError: There is no such checkpoint.
        InputError: Anything but a fit without a checkpoint.
    """
    if ckpt_path is None:
        if subcommand == "fit":
            return None
        raise InputError(
            f"{subcommand} needs trained weights and found no --ckpt_path; expected best or last (of the run in "
            f"{folder}) or the file of a checkpoint."
        )
    path = folder / "checkpoints" / f"{ckpt_path}.ckpt" if ckpt_path in ("last", "best") else Path(ckpt_path)
    if not path.is_file():
        raise MissingInputError(
            f"There is no checkpoint {path} (--ckpt_path {ckpt_path}); expected one that an earlier fit with this "
            "--experiment, --output_dir and --data.fold wrote. To start afresh, leave --ckpt_path away."
        )
    return str(path)


@rank_zero_only
def _clear(folder: Path, overwrite: bool) -> None:
    """Make room for a new run, or refuse."""
    if not (folder / "checkpoints").is_dir():
        return
    if not overwrite:
        raise InputError(
            f"{folder} already holds a run. Resume it with --ckpt_path last, replace it with --overwrite true, or "
            "choose another --experiment."
        )
    for name in ("checkpoints", "pictures", "predictions", "wandb", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for file in [*folder.glob("*.csv"), *folder.glob("*config.yaml"), *folder.glob("*.json")]:
        file.unlink()


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: Words after the program's name; those of the process by default, which then ends with a sentence and
            status 2 where the input is at fault.
    """
    if args is not None:
        _run(list(args), args)
        return
    try:
        _run(sys.argv[1:], None)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _run(words: Sequence[str], args: Sequence[str] | None) -> None:
    # Prepared cases are cached, so that few loader processes do; newer torch and MONAI deprecate what Lightning 2.6 and
    # MONAI itself call.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*always_return_as_numpy.*")
    if args is not None:
        warnings.filterwarnings("ignore", message=".*args parameter is intended to run.*")
    if words and words[0] in OWN_COMMANDS:
        OWN_COMMANDS[words[0]](words[1:])
        return
    stage = cast(Stage, words[0]) if words and words[0] in get_args(Stage) else None
    CommandLine(
        stage,
        model_class=BaseTask,
        datamodule_class=UltrasoundDataModule,
        save_config_callback=RunConfig,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"callbacks": [callback() for callback in CALLBACKS]},
        subclass_mode_model=True,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        parser_kwargs={
            "prog": "cm_lightning",
            "description": DESCRIPTION,
            "epilog": OWN_COMMANDS_HELP,
            "version": __version__,
        },
        args=args,
    )
