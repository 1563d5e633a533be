"""Lightning's subcommands: fit, validate, test and predict, with one folder a run."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Never, cast, get_args

import yaml
from jsonargparse import SUPPRESS
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_only
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy

import cm_lightning
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
from cm_lightning.data import UltrasoundDataModule
from cm_lightning.errors import InputError, UsageError
from cm_lightning.metrics import SCORE
from cm_lightning.parsing import PlainErrors
from cm_lightning.runs import ExperimentFolder, FoldFolder, Settings, flatten
from cm_lightning.runs.layout import BEST, LAST
from cm_lightning.runs.settings import RUN_SPECIFIC
from cm_lightning.runs.sweeps import sweep_experiment
from cm_lightning.tasks import BaseTask, DeepAtlasTask
from cm_lightning.tasks.base import Stage
from cm_lightning.tracking.loggers import ResumableCSVLogger, WandbRunLogger
from cm_lightning.tracking.policy import RunIdentity, WandbSettings, resolve_mode

# What every run has beside the callbacks that have settings of their own.
CALLBACKS: tuple[type[Callback], ...] = (
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


class StageParser(PlainErrors, LightningArgumentParser):
    """The parser of one of Lightning's subcommands."""


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
        # On its own, so that a configuration can change two of its settings beside a shared file of the data's.
        parser.add_class_arguments(ConfidenceMapSolver, "solver")
        parser.link_arguments("solver", "data.solver", apply_on="instantiate")
        for name in ("classes", "spatial_dims", "spatial_size", "patch_size"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}")
        # Of earlier versions, whose stored configurations have it; it is the task's to say.
        parser.add_argument("--data.pairs_per_case", type=int, default=0, help=SUPPRESS)
        # In the help, the project's own groups first and the trainer, by far the longest, last.
        parser._action_groups.sort(key=lambda group: any(action.dest == "trainer" for action in group._group_actions))

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, then settle the run's folder and the checkpoint before anything is built."""
        super().parse_arguments(parser, args)
        subcommand = self.config["subcommand"]
        config = self.config[subcommand]
        config.experiment = sweep_experiment(config.experiment)
        fold = ExperimentFolder(Path(config.output_dir) / config.experiment).fold(config.data.fold)
        config.ckpt_path = find_checkpoint(subcommand, config.ckpt_path, fold)
        if subcommand == "fit" and config.ckpt_path is None and not config.trainer.fast_dev_run:
            make_room(fold, config.overwrite)
        config.checkpoint.dirpath = str(fold.checkpoints)
        config.trainer.default_root_dir = str(fold.path)
        if subcommand == "test":
            # The callback ResultTable prints a table of its own, with spread and units.
            config.verbose = False
        # What a run was trained with stays beside what it was tested with.
        self.save_config_kwargs["config_filename"] = fold.settings_of(subcommand).name
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
        fold = FoldFolder(Path(settings["trainer.default_root_dir"]))
        if subcommand == "fit" and fold.config.is_file():
            before = flatten(fold.read_settings())
            for key in sorted(before.keys() & settings.keys() - RUN_SPECIFIC):
                if before[key] != settings[key]:
                    rank_zero_info(f"Resumed with {key} {settings[key]!r}; the run was started with {before[key]!r}.")

    def instantiate_classes(self) -> None:
        """Build everything; what a constructor says of its arguments is not wrapped in the parser's own words."""
        config = self.config[self.config["subcommand"]]
        config.data.pop("pairs_per_case", None)
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
        self.model.check_data(self.datamodule, self.config["subcommand"])

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
        fold = FoldFolder(Path(settings["default_root_dir"]))
        loggers = self._loggers(fold, settings["logger"])
        task = self._get(self.config_init, "model")

        def build(**more: Any) -> Trainer:
            callbacks = [*(settings["callbacks"] or []), last_checkpoint(fold)]
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

    def _loggers(self, fold: FoldFolder, configured: Any) -> list[Logger]:
        """The run's loggers; Lightning takes the folder of the first as the run's own."""
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
    """Keep the weights of the last finished epoch, from which an interrupted training goes on.

    Args:
        fold: The run's folder.

    Returns:
        The callback. (ModelCheckpoint's own ``save_last`` writes it only when the best changes.)
    """
    return ModelCheckpoint(fold.checkpoints, filename=LAST, save_on_train_epoch_end=True, enable_version_counter=False)


def find_checkpoint(subcommand: str, ckpt_path: Any, fold: FoldFolder) -> str | None:
    """Turn ``last``, ``best`` or a path into the file of a checkpoint.

    Args:
        subcommand: "fit", "validate", "test" or "predict".
        ckpt_path: What the user gave.
        fold: The run's folder.

    Returns:
        The file, or None for a fit from the start.

    Raises:
        MissingInputError: There is no such checkpoint.
        InputError: Anything but a fit without a checkpoint.
    """
    if ckpt_path is not None:
        return str(fold.find_checkpoint(str(ckpt_path)))
    if subcommand == "fit":
        return None
    raise InputError(
        f"{subcommand} needs trained weights and found no --ckpt_path; expected best or last (of the run in "
        f"{fold.path}) or the file of a checkpoint."
    )


@rank_zero_only
def make_room(fold: FoldFolder, overwrite: bool) -> None:
    """Remove an earlier run from a folder, in one process alone; see :meth:`FoldFolder.make_room`."""
    fold.make_room(overwrite)


class _ResolvedError(Exception):
    """Carries the settings that a command line stands for out of LightningCLI's constructor, which would run them."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings


class _SettingsOnly(CommandLine):
    """Parses a command line, and stops before anything is built or removed."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> Never:
        """Parse, and give the settings."""
        LightningCLI.parse_arguments(self, parser, args)
        raise _ResolvedError(self._settings())


def resolve_settings(argv: Sequence[str]) -> Settings:
    """Find the settings that a command line of ``fit`` stands for, without running it.

    Args:
        argv: Command line after ``fit``.

    Returns:
        All settings, with dotted names.

    Raises:
        InputError: The command line is not one that fit takes.
    """
    try:
        _build(_SettingsOnly, ["fit", *argv])
    except _ResolvedError as resolved:
        # An agent's run is renamed after parsing.
        return resolved.settings | {"experiment": sweep_experiment(resolved.settings["experiment"])}
    except UsageError as error:
        raise InputError(f"fit does not take these settings: {error}") from error
    raise AssertionError("the parser neither gave settings nor ended")


def run_stage(argv: Sequence[str]) -> None:
    """Run one of Lightning's subcommands.

    Args:
        argv: Command line, with the subcommand.

    Raises:
        InputError: The settings, the data or the checkpoint are not what is expected.
    """
    _build(CommandLine, argv)


def _build(kind: type[CommandLine], argv: Sequence[str]) -> None:
    """Build the command line, which runs it."""
    # Prepared cases are cached, so that few loader processes do; newer torch and MONAI deprecate what Lightning 2.6 and
    # MONAI itself call; the command line is always given as a list.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*always_return_as_numpy.*")
    warnings.filterwarnings("ignore", message=".*args parameter is intended to run.*")
    kind(
        cast(Stage, argv[0]) if argv[0] in get_args(Stage) else None,
        model_class=BaseTask,
        datamodule_class=UltrasoundDataModule,
        save_config_callback=RunConfig,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"callbacks": [callback() for callback in CALLBACKS]},
        subclass_mode_model=True,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        parser_class=StageParser,
        parser_kwargs={"prog": "cm_lightning", "description": cm_lightning.__doc__, "version": __version__},
        args=list(argv),
    )
