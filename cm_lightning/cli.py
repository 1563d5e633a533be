"""The subcommands of Lightning (fit, validate, test, predict), with one folder per run."""

import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Never, cast, get_args

from jsonargparse import SUPPRESS, Namespace
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_only
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, ProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import SIGTERMException

import cm_lightning
from cm_lightning import __version__
from cm_lightning.callbacks import (
    AugmentationPicture,
    BestScore,
    CaseTable,
    ConfidenceCost,
    ConfusionPicture,
    EpochLines,
    LogPosition,
    PredictionWriter,
    ReliabilityPicture,
    ResultTable,
    Resuming,
    RunProgressBar,
    SegmentationPictures,
    Throughput,
    UncertaintyPictures,
    ValidationMetrics,
    WorstCasePictures,
)
from cm_lightning.callbacks.checkpoints import BestCheckpoint, CompleteCheckpointIO, LastCheckpoint
from cm_lightning.callbacks.outcome import Outcome
from cm_lightning.callbacks.resuming import sort_checkpoints
from cm_lightning.callbacks.trainer_state import fold_folder
from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.classes import ClassValues, resolve_classes, written_values
from cm_lightning.data.layouts import LayoutName, default_axes
from cm_lightning.errors import InputError, UsageError, is_system_error, suggestion
from cm_lightning.inference import EnsembleCheck, find_members, load_task
from cm_lightning.inference.ensemble import check_members
from cm_lightning.interruption import Terminated
from cm_lightning.metrics import METRICS, SCORE
from cm_lightning.models.checkpoints import read_checkpoint
from cm_lightning.parsing import PlainHelpMixin, ShortErrorMixin, check_exclusive, innermost_reason
from cm_lightning.runs import ExperimentFolder, FoldFolder, Settings, flatten, source_commit, versions
from cm_lightning.runs.completion import mark_finished
from cm_lightning.runs.layout import AUTO, BEST, LAST, check_determined, check_inside
from cm_lightning.runs.lock import RunLock
from cm_lightning.runs.plans import complete_settings
from cm_lightning.runs.settings import RUN_SPECIFIC
from cm_lightning.runs.sweeps import sweep_experiment
from cm_lightning.tasks import BaseTask, DeepAtlasTask
from cm_lightning.tasks.base import Stage
from cm_lightning.tracking.loggers import ResumableCSVLogger, WandbRunLogger
from cm_lightning.tracking.policy import RunIdentity, WandbSettings, resolve_mode
from cm_lightning.writing import write_text

# Titles of the groups of options in the help, by the name of an option of the group.
TITLES = {
    "model": "Model",
    "data": "Data",
    "wandb": "Weights & Biases",
    "checkpoint": "Checkpoints",
    "pictures": "Pictures of validation cases",
    "uncertainty": "Pictures of the uncertainty of validation cases",
    "prediction": "Files of predictions",
    "solver": "Confidence maps",
    "trainer": "Trainer",
    "ckpt_path": "Weights",
}
# Callbacks without settings, which every run has.
CALLBACKS: tuple[type[Callback], ...] = (
    AugmentationPicture,
    BestScore,
    ConfidenceCost,
    EpochLines,
    Throughput,
    ValidationMetrics,
    ResultTable,
    WorstCasePictures,
    CaseTable,  # shows what WorstCasePictures has drawn
    ReliabilityPicture,
    ConfusionPicture,
)


class RunConfig(SaveConfigCallback):
    """Writes settings and software versions to the folder of the run, and sends the settings of ``fit`` to W&B.

    Lightning would write them to the final file, of which a full disk leaves 0 bytes.
    """

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the settings, and send them nested to W&B (only in ``fit``)."""
        made_with = {**versions(), "commit": source_commit() or "unknown"}
        comment = ", ".join(f"{name} {value}" for name, value in made_with.items())
        text = self.parser.dump(self.config, skip_none=False, skip_validation=True)
        write_text(fold_folder(trainer).path / self.config_filename, f"# Made with {comment}\n{text}")
        for logger in trainer.loggers:
            if isinstance(logger, WandbRunLogger) and stage == "fit":
                logger.log_config(_nested_settings(self.parser, self.config))


def _nested_settings(parser: LightningArgumentParser, config: Namespace) -> dict[str, Any]:
    """Return parsed settings as they are written to files, as nested dictionaries."""
    # The settings are valid, and JSON is read faster than YAML.
    dumped = parser.dump(config, "json", skip_none=False, skip_validation=True, skip_link_targets=False)
    settings: dict[str, Any] = json.loads(dumped)
    return settings


class StageParser(PlainHelpMixin, ShortErrorMixin, LightningArgumentParser):
    """Parser of the subcommands of Lightning."""


class CommandLine(LightningCLI):
    """LightningCLI with one folder per run, ``<output_dir>/<experiment>/fold<k>``.

    Args:
        stage: The subcommand, or None if the command line does not begin with it. If it is given, the parsers of the
            other subcommands are not built.
        **kwargs: Arguments of LightningCLI.
    """

    def __init__(self, stage: Stage | None, **kwargs: Any) -> None:
        self._stage = stage
        self._argv: list[str] = kwargs["args"]
        self._lock: RunLock | None = None
        super().__init__(**kwargs)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is static
        """Return the subcommands, each with the arguments of its method that are not options."""
        commands = LightningCLI.subcommands()
        return commands if self._stage is None else {self._stage: commands[self._stage]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of the run, of its callbacks and of the solver, and link data settings to the model."""
        parser.add_argument("--experiment", type=str, default="experiment", help="Name of the experiment.")
        parser.add_argument("--output_dir", type=Path, default=Path("outputs"), help="Folder of all experiments.")
        parser.add_argument("--overwrite", type=bool, default=False, help="Delete an earlier run of this fold.")
        parser.add_argument(
            "--plan",
            type=bool,
            default=False,
            help="Choose sizes of images or patches, U-Net, batch and number of epochs that are not set (null) from "
            "the data and the memory, by nnU-Net's rules; on GPUs also trainer.precision.",
        )
        parser.add_class_arguments(WandbSettings, "wandb")
        parser.add_argument("--tensorboard", type=bool, default=False, help="Also write TensorBoard files.")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": SCORE,
                "checkpoint.mode": "max",
                "checkpoint.filename": BEST,
                "checkpoint.enable_version_counter": False,
                "model": {"class_path": "cm_lightning.tasks.SegmentationTask"},
            }
        )
        parser.add_lightning_class_args(SegmentationPictures, "pictures")
        parser.add_lightning_class_args(UncertaintyPictures, "uncertainty")
        parser.add_lightning_class_args(PredictionWriter, "prediction")
        # Not nested in ``data``, so that a configuration can change single settings beside a shared file for ``data``.
        parser.add_class_arguments(ConfidenceMapSolver, "solver")
        parser.link_arguments("solver", "data.solver", apply_on="instantiate")
        for name in ("spatial_size", "patch_size"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}")
        parser.link_arguments(("data.classes", "data.root", "data.layout"), "model.init_args.classes", _model_classes)
        parser.link_arguments(
            ("data.spatial_dims", "data.axes", "data.root", "data.layout"), "model.init_args.spatial_dims", _model_dims
        )
        # Stored configurations of earlier versions contain this setting; the task determines it now.
        parser.add_argument("--data.pairs_per_case", type=int, default=0, help=SUPPRESS)
        # The help shows the project's own groups first, and the long one of the trainer last.
        parser._action_groups.sort(key=lambda group: any(action.dest == "trainer" for action in group._group_actions))

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Create the parser of a subcommand with short titles of its groups of options."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand in ("test", "predict"):
            parser.add_argument(
                "--ensemble",
                type=Path,
                nargs="+",
                help="Checkpoints, or folders of experiments with all their folds, whose probabilities are averaged; "
                "instead of --ckpt_path.",
            )
        for group in parser._action_groups:
            names = {action.dest for action in group._group_actions}
            group.title = next((title for name, title in TITLES.items() if name in names), group.title)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, and determine the folder of the run and the checkpoint."""
        super().parse_arguments(parser, args)
        subcommand = self.config["subcommand"]
        config = self.config[subcommand]
        # The stored settings do not depend on the description of the data set.
        config.data.classes = dict(resolve_classes(config.data.classes, Path(config.data.root), config.data.layout))
        seed = config.seed_everything
        if not isinstance(seed, bool) and seed is not None and not 0 <= seed < 2**32:
            raise InputError(f"seed_everything must be from 0 to {2**32 - 1}, found {seed}.")
        config.experiment = sweep_experiment(config.experiment)
        check_inside("--experiment", config.experiment, Path(config.output_dir))
        fold = ExperimentFolder(Path(config.output_dir) / config.experiment).fold(config.data.fold)
        if config.checkpoint.filename is not None:
            check_inside("--checkpoint.filename", config.checkpoint.filename, fold.checkpoints)
        if config.get("ensemble"):
            check_exclusive(ensemble=config.ensemble, ckpt_path=config.ckpt_path)
            config.ensemble = find_members([Path(path) for path in config.ensemble])
            config.ckpt_path = config.ensemble[0]
        config.ckpt_path = find_checkpoint(subcommand, config.ckpt_path, fold)
        if config.plan:
            checkpoint = None if config.ckpt_path is None else Path(config.ckpt_path)
            planned = complete_settings(config, checkpoint, subcommand == "fit")
            if planned:
                rank_zero_info(planned)
        if subcommand == "fit" and not config.trainer.fast_dev_run:
            fold.check_owner()
        check_determined("--checkpoint.dirpath", config.checkpoint.dirpath, fold.checkpoints)
        check_determined("--trainer.default_root_dir", config.trainer.default_root_dir, fold.path)
        config.checkpoint.dirpath = str(fold.checkpoints)
        config.trainer.default_root_dir = str(fold.path)
        if subcommand == "test":
            # The callback ResultTable prints a more complete table.
            config.verbose = False
        if subcommand == "predict":
            # PredictionWriter writes them; a list of all predictions would need much memory.
            config.return_predictions = False
        # The settings of training and of testing are kept in separate files.
        self.save_config_kwargs["config_filename"] = fold.settings_file(subcommand).name
        # A checkpoint may replace these settings later.
        self._requested = {} if config.ckpt_path is None else self._settings()

    @rank_zero_only
    def _lock_folder(self, fold: FoldFolder) -> None:
        """Keep other processes from training in the folder until the end of this one."""
        self._lock = RunLock(fold.path)

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the subcommand; after an interruption, state what is kept, and which command continues."""
        try:
            super()._run_subcommand(subcommand)
        except SIGTERMException:
            raise Terminated(signal.SIGTERM, self._continuation()) from None
        except Terminated as error:
            raise Terminated(error.number, self._continuation()) from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._continuation()) from None
        except SystemExit:
            if not self.trainer.interrupted:
                raise
            raise KeyboardInterrupt(self._continuation()) from None  # Lightning converts Ctrl-C
        finally:
            if self._lock is not None:
                self._lock.release()

    def _continuation(self) -> str:
        """Return one line about what an interrupted subcommand leaves."""
        if self.subcommand != "fit":
            return f"{self.subcommand} was interrupted. Completed files are kept; the same command starts again."
        kept = FoldFolder(Path(self.trainer.default_root_dir)).resumable_checkpoint()
        if kept is None:
            return "fit was interrupted before the end of the first epoch; the same command starts again."
        return f"fit was interrupted. {kept} is kept; the same command with --ckpt_path auto continues from it."

    def before_fit(self) -> None:
        """Remove the marker of the earlier end of a run that is continued."""
        if self.trainer.is_global_zero:
            FoldFolder(Path(self.trainer.default_root_dir)).finished.unlink(missing_ok=True)

    def after_fit(self) -> None:
        """Mark the run as finished."""
        trainer = self.trainer
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            mark_finished(FoldFolder(Path(trainer.default_root_dir)).finished, trainer.current_epoch)

    def before_instantiate_classes(self) -> None:
        """Report the settings that differ from those in the checkpoint or from those of the interrupted run."""
        subcommand = self.config["subcommand"]
        if self.config[subcommand].ckpt_path is None:
            return
        # At this point Lightning has replaced the settings of the model with those in the checkpoint.
        settings = self._settings()
        for key, value in settings.items():
            requested = self._requested.get(key, value)
            if requested != value:
                rank_zero_info(f"{key} is {value!r}, as in the checkpoint; {requested!r} was ignored.")
        fold = FoldFolder(Path(settings["trainer.default_root_dir"]))
        if subcommand == "fit" and fold.config.is_file():
            before = flatten(fold.read_settings())
            for key in sorted(before.keys() & settings.keys() - RUN_SPECIFIC):
                if before[key] != settings[key]:
                    rank_zero_info(f"Resumed with {key} {settings[key]!r}; the run was started with {before[key]!r}.")

    def instantiate_classes(self) -> None:
        """Build the model, the data and the trainer. Errors of constructors are invalid settings."""
        try:
            self._instantiate_classes()
        except Exception as error:  # libraries raise errors of many types for settings that they do not accept
            if isinstance(error, InputError) or is_system_error(error):
                raise
            raise InputError(f"The settings are invalid: {innermost_reason(error)}") from error

    def _instantiate_classes(self) -> None:
        config = self.config[self.config["subcommand"]]
        config.data.pop("pairs_per_case", None)
        arguments = config.model.init_args
        init_from = arguments.get("init_from")
        if config.ckpt_path is not None and init_from is not None:
            # All weights come from the checkpoint, and the initial weights may no longer exist.
            arguments.init_from = None
        try:
            super().instantiate_classes()
        except ValueError as error:
            if isinstance(error.__cause__, InputError):
                raise error.__cause__ from None
            raise
        check_monitor(config.checkpoint.monitor, list(arguments.classes))
        if init_from is not None:
            arguments.init_from = init_from  # recorded in the settings of the run
        self._add_members(config.get("ensemble"))
        self.datamodule.pairs_per_case = self.model.pairs_per_case
        self.model.check_data(self.datamodule, self.config["subcommand"])
        if self.config["subcommand"] == "fit" and not config.trainer.fast_dev_run:
            # Not earlier, so that invalid settings leave no folder.
            fold = FoldFolder(Path(config.trainer.default_root_dir))
            self._lock_folder(fold)
            if config.ckpt_path is None:
                remove_earlier_run(fold, config.overwrite)

    def _add_members(self, paths: Sequence[Path] | None) -> None:
        """Add the other members of an ensemble to the task."""
        if not paths:
            return
        members = [load_task(Path(path), "--ensemble") for path in paths]
        check_members(members)
        if self.model.temperature_scaling.enabled:
            raise InputError(
                "model.temperature_scaling cannot be combined with --ensemble, since every member has its own "
                "temperature; expected only one of them."
            )
        self.model.members = [member.task for member in members[1:]]
        self.trainer.callbacks.append(EnsembleCheck(members))  # type: ignore[attr-defined]

    def _settings(self) -> dict[str, Any]:
        """Return all settings as they are written to files, with dotted names."""
        return flatten(_nested_settings(self.parser, self.config)[self.config["subcommand"]])

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer with the loggers and the checkpoint of the last epoch that every run has.

        The CSV logger comes first, then W&B and the configured loggers; ``trainer.logger false`` disables all of them.
        DeepAtlas uses manual optimisation, for which Lightning neither clips nor accumulates gradients: these settings
        of the trainer are passed to the task. Since not every parameter of DeepAtlas has a gradient in every step,
        distributed training looks for unused parameters.
        """
        settings = self._get(self.config_init, "trainer")
        fold = FoldFolder(Path(settings["default_root_dir"]))
        loggers = self._loggers(fold, settings["logger"])
        task = self._get(self.config_init, "model")

        plugins = settings["plugins"] or []
        plugins = list(plugins) if isinstance(plugins, list | tuple) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, CompleteCheckpointIO()]

        def build(**options: Any) -> Trainer:
            callbacks = [*(settings["callbacks"] or []), Resuming(), LogPosition(), *self._best_checkpoint(fold)]
            callbacks.append(last_checkpoint(fold))
            shows_bar = settings["enable_progress_bar"] is not False
            if shows_bar and not any(isinstance(callback, ProgressBar) for callback in callbacks):
                # Bars would fill log files, in which every epoch has a line.
                if sys.stdout.isatty():
                    callbacks.append(RunProgressBar())
                else:
                    options["enable_progress_bar"] = False
            trainer = super(CommandLine, self).instantiate_trainer(
                **kwargs, **options, logger=loggers or False, callbacks=callbacks
            )
            sort_checkpoints(trainer, self._get(self.config_init, "checkpoint"))
            trainer.callbacks.append(Outcome(self._argv[1:]))  # type: ignore[attr-defined]  # after all tables
            return trainer

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

    def _best_checkpoint(self, fold: FoldFolder) -> list[Callback]:
        """Return the callback of ``best.ckpt`` if ``--checkpoint`` keeps several checkpoints or uses another name."""
        settings: ModelCheckpoint = self._get(self.config_init, "checkpoint")
        if settings.monitor is None or settings.save_top_k == 0:
            return []
        if settings.save_top_k == 1 and settings.filename == BEST:
            return []
        if settings.filename == BEST:
            settings.filename = f"{BEST}_{{epoch:04d}}"
        return [
            BestCheckpoint(fold.checkpoints, BEST, settings.monitor, mode=settings.mode, enable_version_counter=False)
        ]

    def _loggers(self, fold: FoldFolder, configured: Any) -> list[Logger]:
        """Create the loggers of the run; Lightning uses the folder of the first one as that of the run."""
        if configured is False:
            return []
        loggers: list[Logger] = [ResumableCSVLogger(fold.path)]
        wandb_settings: WandbSettings = self._get(self.config_init, "wandb")
        if self.subcommand in ("fit", "test") and resolve_mode(wandb_settings)[0] != "disabled":
            identity = RunIdentity(fold.path, fold.name, fold.experiment.name, "fold")
            loggers.append(WandbRunLogger(wandb_settings, identity))
        if self._get(self.config_init, "tensorboard"):
            loggers.append(TensorBoardLogger(fold.path, name=fold.tensorboard.name, version=""))
        if isinstance(configured, list):
            return [*loggers, *configured]
        return loggers if isinstance(configured, bool) or configured is None else [*loggers, configured]


def last_checkpoint(fold: FoldFolder) -> ModelCheckpoint:
    """Create the callback that saves a checkpoint after every training epoch, so that interrupted runs can be resumed.

    Each checkpoint replaces the previous one.

    Args:
        fold: Folder of the run.

    Returns:
        The callback, which writes the file ``last.ckpt``.
    """
    # The option save_last of ModelCheckpoint would save only when the best epoch changes.
    return LastCheckpoint(fold.checkpoints, filename=LAST, save_on_train_epoch_end=True, enable_version_counter=False)


def find_checkpoint(subcommand: str, ckpt_path: Any, fold: FoldFolder) -> str | None:
    """Return the checkpoint file of ``last``, ``best`` or a path.

    Args:
        subcommand: "fit", "validate", "test" or "predict".
        ckpt_path: Value of the option, or None. ``auto``, which is also the default of a job that SLURM has requeued,
            is the last checkpoint if there is one.
        fold: Folder of the run.

    Returns:
        Path of the file; None for training from scratch.

    Raises:
        MissingInputError: The checkpoint does not exist.
        InputError: A subcommand other than ``fit`` has no checkpoint.
    """
    requeued = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0
    if subcommand == "fit" and (ckpt_path == AUTO or (ckpt_path is None and requeued)):
        ckpt_path = fold.resumable_checkpoint()
    if ckpt_path is not None:
        path = fold.find_checkpoint(str(ckpt_path))
        read_checkpoint(path, "--ckpt_path")  # Errors of Lightning would be tracebacks.
        return str(path)
    if subcommand == "fit":
        return None
    raise InputError(
        f"{subcommand} needs trained weights and found no --ckpt_path; expected best or last (of the run in "
        f"{fold.path}) or the file of a checkpoint."
    )


def check_monitor(monitor: str | None, class_names: Sequence[str]) -> None:
    """Check that the monitored metric of the best checkpoint will be logged.

    Args:
        monitor: Name of the metric.
        class_names: Names of the classes.

    Raises:
        InputError: No such metric is logged; the message suggests the closest one.
    """
    if monitor is None:
        return
    names = ["mean", *class_names]
    known = ["val/loss", "val/temperature", "val/confidence_error", "train/loss", "train/lr", "best/val/dice/mean"]
    known += [f"val/{metric}/{name}" for metric in METRICS for name in names]
    known += [f"val/registration/{name}" for name in ("dice", "identity_dice", "folding")]
    if monitor not in known:
        raise InputError(
            f"checkpoint.monitor {monitor!r} is not logged; expected a metric such as val/dice/mean."
            f"{suggestion(monitor, known)}"
        )


@rank_zero_only
def remove_earlier_run(fold: FoldFolder, overwrite: bool) -> None:
    """Delete an earlier run, in the main process only; see :meth:`FoldFolder.remove_earlier_run`.

    Args:
        fold: Folder of the run.
        overwrite: Whether an earlier run may be deleted.

    Raises:
        InputError: There is an earlier run and ``overwrite`` is false.
    """
    fold.remove_earlier_run(overwrite)


class _ResolvedError(Exception):
    """Carries resolved settings out of the constructor of LightningCLI, which would otherwise run the subcommand."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings


class _SettingsOnly(CommandLine):
    """Parses a command line and stops before anything is built or deleted."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> Never:
        """Parse the command line and raise its settings."""
        LightningCLI.parse_arguments(self, parser, args)
        raise _ResolvedError(self._settings())


def resolve_settings(argv: Sequence[str]) -> Settings:
    """Resolve the settings of a ``fit`` command line without running it.

    Args:
        argv: Command line after ``fit``.

    Returns:
        All settings, with dotted names.

    Raises:
        InputError: The command line is invalid.
    """
    try:
        _build(_SettingsOnly, ["fit", *argv])
    except _ResolvedError as resolved:
        # Runs of a W&B agent are renamed after parsing.
        return resolved.settings | {"experiment": sweep_experiment(resolved.settings["experiment"])}
    except UsageError as error:
        raise InputError(f"Invalid settings of fit: {error}") from error
    raise AssertionError("the parser returned without settings or an error")


def run_stage(argv: Sequence[str], descriptions: Mapping[str, str] | None = None) -> None:
    """Run one of the subcommands of Lightning.

    Args:
        argv: Command line, including the subcommand.
        descriptions: Description of every subcommand for its help, which starts with a small letter; those of
            Lightning by default.

    Raises:
        InputError: The settings, the data or the checkpoint are invalid.
    """
    _build(CommandLine, argv, descriptions or {})


def _build(
    command_line: type[CommandLine], argv: Sequence[str], descriptions: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Construct the command-line class, which runs the subcommand."""
    stage = cast(Stage, argv[0]) if argv[0] in get_args(Stage) else None
    sentences = {
        name: {"description": f"{text[0].upper()}{text[1:]}."}
        for name, text in descriptions.items()
        if stage in (None, name)
    }
    # Prepared cases are cached, so few loader processes are enough. Lightning 2.6 and MONAI themselves call functions
    # that newer versions of torch and MONAI deprecate. The command line is always passed as a list.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*always_return_as_numpy.*")
    warnings.filterwarnings("ignore", message=".*args parameter is intended to run.*")
    # Notes of Lightning that a user cannot act on, since the folder and its checkpoints are chosen by the command line.
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*dirpath has changed.*")
    # The order of cases is a function of seed and epoch, from which the sampler continues.
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_useful)
    command_line(
        stage,
        model_class=BaseTask,
        datamodule_class=UltrasoundDataModule,
        save_config_callback=RunConfig,
        save_config_kwargs={"save_to_log_dir": False},
        # One line names the network; the table of Lightning counts no operations of tasks like these.
        trainer_defaults={"callbacks": [callback() for callback in CALLBACKS], "enable_model_summary": False},
        subclass_mode_model=True,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        parser_class=StageParser,
        parser_kwargs={
            "prog": "cm_lightning",
            "description": cm_lightning.__doc__,
            "version": __version__,
            **sentences,
        },
        args=list(argv),
    )


def _model_classes(classes: ClassValues | None, root: Path | None, layout: str) -> dict[str, int] | None:
    """Return the classes of the network for those of the data; None as long as the data set is not known."""
    if classes is None and root is None:
        return None
    return written_values(resolve_classes(classes, Path(root or "."), layout))


def _model_dims(dims: int | None, axes: str | None, root: Path | None, layout: LayoutName) -> int:
    """Return the number of spatial dimensions of the network for the settings of the data."""
    return dims or len((axes or default_axes(Path(root or "."), layout)).split())


def _is_useful(record: logging.LogRecord) -> bool:
    """Return whether a message of Lightning is neither an advertisement nor about devices that do not exist."""
    message = record.getMessage()
    return "litlogger" not in message and not message.startswith("TPU available: False")
