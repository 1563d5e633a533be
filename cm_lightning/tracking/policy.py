"""Start of W&B runs without delaying the training: online if possible, otherwise offline in the folder of the run."""

import configparser
import contextlib
import netrc
import os
import secrets
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlparse

from lightning_utilities.core.rank_zero import rank_zero_info

from cm_lightning.writing import write_text

if TYPE_CHECKING:
    from wandb import Run

# Beginning of the keys of pictures that show patients.
CASE_PICTURES = "media/"
Mode = Literal["auto", "offline", "disabled"]
# Time limit of the connection in seconds. The default of 90 s would delay all runs on machines without a network.
SECONDS_TO_CONNECT = 20.0
# Time limit of the final upload in seconds. All data also remain in the folder of the run.
SECONDS_TO_UPLOAD = 300.0


@dataclass(frozen=True)
class WandbSettings:
    """Settings of Weights & Biases (W&B).

    Args:
        mode: ``auto`` is online if there is a login and a network, and offline otherwise. ``offline`` only writes
            files, which ``sync`` uploads. ``disabled`` switches W&B off. If the environment variable ``WANDB_MODE`` is
            set, the more restrictive of the two modes is used.
        project: Project; the default is the environment variable ``WANDB_PROJECT``, or cm_lightning.
        entity: User or team; the default is that of the login.
        pictures: Whether to log pictures of cases, which show patients. By default they are only in the files of
            offline runs; online, they are sent only if this is true. Scalars and tables of results are always logged.
    """

    mode: Mode = "auto"
    project: str | None = None
    entity: str | None = None
    pictures: bool | None = None


@dataclass(frozen=True)
class RunIdentity:
    """Name, group and folder of a W&B run.

    Attributes:
        folder: Folder that contains all files of the run including its tables, so it can be copied and uploaded
            from another machine.
        name: Name of the run.
        group: Experiment, which groups the runs of its folds.
        job_type: ``fold`` or ``cv-summary``.
    """

    folder: Path
    name: str
    group: str
    job_type: Literal["fold", "cv-summary"]


def resolve_mode(settings: WandbSettings) -> tuple[Literal["online", "offline", "disabled"], str]:
    """Choose the more restrictive mode of the settings and of the environment.

    Args:
        settings: Settings of W&B.

    Returns:
        The mode, and the reason if it is not online.
    """
    modes = {settings.mode: "--wandb.mode", **_own_modes()}
    for name in ("disabled", "offline"):
        if name in modes:
            return name, f"set by {modes[name]}"
    return ("online", "") if _logged_in() else ("offline", "no login")


def _own_modes() -> dict[str, str]:
    """Return the modes that are set outside of this package, each with the place of the setting.

    These are the environment variables of W&B, and the files that ``wandb offline`` and ``wandb disabled`` write.
    """
    modes: dict[str, str] = {}
    value = os.environ.get("WANDB_MODE", "").strip().lower()
    if value:
        # A misspelt mode must not send anything.
        known = {"online": "online", "shared": "online", "dryrun": "offline", "offline": "offline"}
        modes[known.get(value, "disabled" if value == "disabled" else "offline")] = f"WANDB_MODE={value}"
    if os.environ.get("WANDB_DISABLED", "").strip().lower() in ("true", "1", "yes", "on", "y", "t"):
        modes["disabled"] = "WANDB_DISABLED"
    home = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    for file in (home / "settings", Path("wandb/settings")):
        parser = configparser.ConfigParser(interpolation=None)
        with contextlib.suppress(configparser.Error, OSError, UnicodeDecodeError):
            parser.read(file)
            section = parser["default"] if parser.has_section("default") else {}
            if section.get("mode") in ("offline", "dryrun"):
                modes["offline"] = f"wandb offline ({file})"
            if section.get("mode") == "disabled" or section.get("disabled", "").lower() == "true":
                modes["disabled"] = f"wandb disabled ({file})"
    return modes


def start_run(settings: WandbSettings, identity: RunIdentity) -> "Run":
    """Start a run or resume the run of a folder, and print its address or the command for its upload.

    Args:
        settings: Settings of W&B.
        identity: Name, group and folder of the run.

    Returns:
        The run. If W&B is disabled or fails, this run does nothing.
    """
    import wandb

    mode, reason = resolve_mode(settings)
    if mode == "disabled":
        return wandb.init(mode="disabled")
    if os.environ.get("WANDB_MODE", "").strip().lower() not in ("online", "offline", "disabled", "dryrun", "shared"):
        os.environ.pop("WANDB_MODE", None)  # empty or misspelt; W&B would refuse it
    folder = identity.folder.absolute()
    files = folder / "wandb"
    # W&B uploads tables from a staging directory, which is in the home directory by default.
    os.environ["WANDB_DATA_DIR"] = str(files / "data")

    def start(mode: Literal["online", "offline"]) -> "Run":
        return wandb.init(
            entity=settings.entity,
            project=settings.project or os.environ.get("WANDB_PROJECT") or "cm_lightning",
            dir=folder,
            id=_run_id(files),
            name=identity.name,
            group=identity.group,
            job_type=identity.job_type,
            resume="allow",
            mode=mode,
            settings=wandb.Settings(
                silent=True,
                console="off",  # Progress bars would fill the log, and crossval and schedulers store the output.
                init_timeout=SECONDS_TO_CONNECT,
                finish_timeout=SECONDS_TO_UPLOAD,
            ),
        )

    try:
        files.mkdir(parents=True, exist_ok=True)
        try:
            run = start(mode)
        except Exception as error:  # Errors of W&B have no common base class.
            if mode == "offline":
                raise
            # Otherwise, the service process of W&B would still use the id of the failed run.
            wandb.teardown()
            mode, reason = "offline", f"no connection: {str(error).splitlines()[0]}"
            run = start(mode)
    except Exception as error:
        warnings.warn(
            f"W&B logging is disabled, because the run in {files} could not be started: {error}", stacklevel=2
        )
        return wandb.init(mode="disabled")
    if mode == "online":
        pictures = "with" if settings.pictures else "without (--wandb.pictures true sends them)"
        rank_zero_info(
            f"W&B: {run.url} receives settings, metrics and tables of results, {pictures} pictures of cases."
        )
    else:
        rank_zero_info(f"W&B: offline ({reason}). To upload: python -m cm_lightning sync {folder}")
    return run


def _run_id(files: Path) -> str:
    """Return the id of the run: of an earlier process in this folder, of a sweep agent, or a new one."""
    stored = files / "run_id"
    if not stored.is_file():
        # An agent of a sweep sets the id of its run; in other shells, several folds would share it.
        agent = os.environ.get("WANDB_SWEEP_ID") and os.environ.get("WANDB_RUN_ID")
        write_text(stored, agent or secrets.token_hex(4))
    return stored.read_text().strip()


def _logged_in() -> bool:
    """Return whether W&B has credentials, without which it would prompt for them."""
    import wandb

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = wandb.setup().settings
    if settings.api_key:
        return True
    try:
        credentials = netrc.netrc(Path(os.environ.get("NETRC", "~/.netrc")).expanduser())
    except (OSError, netrc.NetrcParseError):
        return False
    return credentials.authenticators(urlparse(settings.base_url).hostname or "") is not None
