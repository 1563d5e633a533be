"""Runs in Weights & Biases that never hold up training: online where that works, in the run's own folder otherwise."""

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
SECONDS_TO_CONNECT = 20.0  # wandb's own 90 s would hold up every run of a machine that has lost its network
SECONDS_TO_UPLOAD = 300.0  # at the end; what is left is in the run's folder


@dataclass(frozen=True)
class WandbSettings:
    """Where runs are shown.

    Args:
        mode: ``auto`` is online where there is a login and a network and offline otherwise; ``offline`` only writes
            files, which ``sync`` uploads; ``disabled`` does nothing. Of this and the environment's ``WANDB_MODE``, the
            one that gives less away holds.
        project: The project; by default the environment's ``WANDB_PROJECT``, or cm_lightning.
        entity: The user or team; by default the login's own.
        pictures: Whether pictures of cases are shown there; scalars and tables of results always are.
    """

    mode: Mode = "auto"
    project: str | None = None
    entity: str | None = None
    pictures: bool = True


@dataclass(frozen=True)
class RunIdentity:
    """What a run is called.

    Attributes:
        folder: Everything that the run writes is in here, tables included: it can be copied and uploaded elsewhere.
        name: Of the run.
        group: The experiment whose folds belong together.
        job_type: ``fold`` or ``cv-summary``.
    """

    folder: Path
    name: str
    group: str
    job_type: Literal["fold", "cv-summary"]


def resolve_mode(settings: WandbSettings) -> tuple[Literal["online", "offline", "disabled"], str]:
    """Decide between network, files and nothing.

    Args:
        settings: What the configuration says.

    Returns:
        The mode, and why it is not online.
    """
    asked = {settings.mode: "--wandb.mode", os.environ.get("WANDB_MODE", ""): "WANDB_MODE"}
    if "disabled" in asked:
        return "disabled", f"{asked['disabled']} says so"
    for name in ("offline", "dryrun"):
        if name in asked:
            return "offline", f"{asked[name]} says so"
    return ("online", "") if _logged_in() else ("offline", "there is no login")


def start_run(settings: WandbSettings, identity: RunIdentity) -> "Run":
    """Start a run, or go on with the one that the folder holds; says in one line where it is to be seen.

    Args:
        settings: Where it is shown.
        identity: What it is called.

    Returns:
        The run; one that does nothing where W&B is disabled or fails.
    """
    import wandb

    mode, reason = resolve_mode(settings)
    if mode == "disabled":
        return wandb.init(mode="disabled")
    folder = identity.folder.absolute()
    files = folder / "wandb"
    # Tables are uploaded from where they are staged, by default in the home directory.
    os.environ["WANDB_DATA_DIR"] = str(files / "data")

    def begin(mode: Literal["online", "offline"]) -> "Run":
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
                console="off",  # crossval and schedulers keep what is printed; progress bars would fill the run
                init_timeout=SECONDS_TO_CONNECT,
                finish_timeout=SECONDS_TO_UPLOAD,
            ),
        )

    try:
        files.mkdir(parents=True, exist_ok=True)
        try:
            run = begin(mode)
        except Exception as error:  # wandb's errors have no base class of their own
            if mode == "offline":
                raise
            # Else its service holds the id of the run that failed.
            wandb.teardown()
            mode, reason = "offline", f"it could not be reached: {str(error).splitlines()[0]}"
            run = begin(mode)
    except Exception as error:
        warnings.warn(f"W&B is left out, as it cannot write to {files}: {error}", stacklevel=2)
        return wandb.init(mode="disabled")
    if mode == "online":
        rank_zero_info(f"W&B: {run.url}")
    else:
        rank_zero_info(f"W&B: offline, as {reason}. To upload: python -m cm_lightning sync {folder}")
    return run


def _run_id(files: Path) -> str:
    """Give the run's identifier: that of an earlier process in this folder, that of a sweep's agent, or a new one."""
    stored = files / "run_id"
    if not stored.is_file():
        stored.write_text(os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4))
    return stored.read_text().strip()


def _logged_in() -> bool:
    """Whether wandb has credentials, so that it does not ask for any."""
    import wandb

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = wandb.setup().settings
    if settings.api_key:
        return True
    try:
        known = netrc.netrc(Path(os.environ.get("NETRC", "~/.netrc")).expanduser())
    except (OSError, netrc.NetrcParseError):
        return False
    return known.authenticators(urlparse(settings.base_url).hostname or "") is not None
