"""Upload of offline W&B runs, also from moved folders, with pictures of patients only on request."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.tracking.policy import CASE_PICTURES
from cm_lightning.tracking.run_file import change_records, find_run_file

if TYPE_CHECKING:
    from wandb.proto.wandb_internal_pb2 import HistoryItem, Record, SummaryItem  # type: ignore[attr-defined]

# Files of pictures and of their masks in the folder ``files`` of a run.
PICTURE_FILE = re.compile(rf"media/images/(mask/)?{CASE_PICTURES}.*")


def sync(folders: Sequence[Path], pictures: bool = False, dry_run: bool = False) -> None:
    """Upload all offline runs in folders, also if these were moved.

    Args:
        folders: Folders of folds, of experiments, or of all outputs.
        pictures: Whether to upload pictures of cases, which show patients.
        dry_run: Only correct the paths in the files and list the runs, without uploading them.

    Raises:
        MissingInputError: A folder contains no offline runs.
        InputError: The upload fails, or pictures cannot be left out.
    """
    runs: list[Path] = []
    for folder in folders:
        offline = sorted(folder.rglob("wandb/offline-run-*"))
        if not offline:
            raise MissingInputError(f"{folder} contains no wandb/offline-run-*; expected offline W&B runs.")
        runs += offline
    for run in runs:
        corrected, number = correct_paths(run), len(list_pictures(run))
        plan = "are sent" if pictures else "stay here (--pictures true sends them)"
        print(f"{run}: {corrected} paths of tables corrected; {number} files with pictures of cases {plan}")
    if dry_run:
        return
    with tempfile.TemporaryDirectory() as place:
        sent = runs
        if not pictures:
            sent = [copy_without_pictures(run, Path(place, str(number), run.name)) for number, run in enumerate(runs)]
        command = [sys.executable, "-m", "wandb", "sync", "--include-synced", *(str(run) for run in sent)]
        failed = subprocess.run(command, check=False).returncode != 0
        for run, copy in zip(runs, sent, strict=True):
            for marker in copy.glob("*.synced"):
                (run / marker.name).touch()
    if failed:
        raise InputError(
            "wandb sync has not uploaded all runs (see above); expected a login (wandb login) and a network connection."
        )


def list_pictures(run: Path) -> list[Path]:
    """List the pictures of cases in the folder of a run, with their masks.

    Args:
        run: The folder ``offline-run-...``.

    Returns:
        Image files.
    """
    files = run / "files"
    return [path for path in sorted(files.rglob("*")) if path.is_file() and _shows_case(path.relative_to(files))]


def copy_without_pictures(run: Path, target: Path) -> Path:
    """Copy the folder of a run, without pictures of cases and without what is recorded about them.

    Args:
        run: The folder ``offline-run-...``.
        target: Folder of the copy, which must not exist.

    Returns:
        Folder of the copy.

    Raises:
        InputError: A table contains pictures, as those of earlier versions do.
    """
    pictures = set(list_pictures(run))
    shutil.copytree(
        run,
        target,
        ignore=lambda folder, names: {name for name in names if Path(folder, name) in pictures or name == "logs"},
    )
    file = find_run_file(run)

    def leave_out(record: "Record") -> bool:
        tables = (record.artifact, record.request.log_artifact.artifact)
        if any(entry.path.startswith("media/images/") for table in tables for entry in table.manifest.contents):
            raise InputError(
                f"{run} contains a table with pictures of cases, which cannot be left out; expected --pictures true, "
                "or a new test with the present version."
            )
        before = record.ByteSize()
        for items in (record.history.item, record.summary.update):
            kept = [item for item in items if not _key(item).startswith(CASE_PICTURES)]
            if len(kept) < len(items):
                del items[:]
                items.extend(kept)
        files = [entry for entry in record.files.files if not _shows_case(entry.path)]
        if len(files) < len(record.files.files):
            del record.files.files[:]
            record.files.files.extend(files)
        return bool(record.ByteSize() != before)

    change_records(file, target / file.name, leave_out)
    return target


def correct_paths(run: Path) -> int:
    """Correct the paths of tables in the file of a run after its folder was moved.

    Args:
        run: The folder ``offline-run-...`` in the folder ``wandb`` of a run.

    Returns:
        Number of corrected paths. If it is 0, the file is not changed.

    Raises:
        MissingInputError: The folder contains no file of a run.
        InputError: The file was not written by W&B, or is damaged.
    """
    staged = run.absolute().parent / "data" / "artifacts" / "staging"
    corrected = 0

    def correct(record: "Record") -> bool:
        nonlocal corrected
        before = corrected
        for artifact in (record.artifact, record.request.log_artifact.artifact):
            for entry in artifact.manifest.contents:
                path = staged / os.path.basename(entry.local_path)  # noqa: PTH119 (it may be a path of another system)
                if entry.local_path and str(path) != entry.local_path and path.is_file():
                    entry.local_path = str(path)
                    corrected += 1
        return corrected > before

    file = find_run_file(run)
    change_records(file, file, correct)
    return corrected


def _shows_case(path: Path | str) -> bool:
    """Return whether a path in the folder ``files`` of a run is that of a picture of a case."""
    return PICTURE_FILE.fullmatch(Path(path).as_posix()) is not None


def _key(item: "HistoryItem | SummaryItem") -> str:
    return item.key or (item.nested_key[0] if item.nested_key else "")
