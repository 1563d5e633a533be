"""Start of W&B runs without delaying the training: online if possible, otherwise offline in the folder of the run."""

import netrc
import os
import secrets
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlparse

from lightning_utilities.core.rank_zero import rank_zero_info

if TYPE_CHECKING:
    from wandb import Run

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
        pictures: Whether to upload pictures of cases. Scalars and tables of results are always uploaded.
    """

    mode: Mode = "auto"
    project: str | None = None
    entity: str | None = None
    pictures: bool = True


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
    modes = {settings.mode: "--wandb.mode", os.environ.get("WANDB_MODE", ""): "WANDB_MODE"}
    if "disabled" in modes:
        return "disabled", f"set by {modes['disabled']}"
    for name in ("offline", "dryrun"):
        if name in modes:
            return "offline", f"set by {modes[name]}"
    return ("online", "") if _logged_in() else ("offline", "no login")


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
        rank_zero_info(f"W&B: {run.url}")
    else:
        rank_zero_info(f"W&B: offline ({reason}). To upload: python -m cm_lightning sync {folder}")
    return run


def _run_id(files: Path) -> str:
    """Return the id of the run: of an earlier process in this folder, of a sweep agent, or a new one."""
    stored = files / "run_id"
    if not stored.is_file():
        stored.write_text(os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4))
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
