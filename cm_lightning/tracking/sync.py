"""Upload of offline W&B runs, also from folders that were moved or copied."""

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from cm_lightning.errors import InputError, MissingInputError

# The file of a run is a log in the format of LevelDB (https://github.com/google/leveldb/blob/main/doc/log_format.md)
# with an additional header, and with the check sum of zlib.
HEADER_BYTES = 7
BLOCK_BYTES = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def sync(folders: Sequence[Path], dry_run: bool = False) -> None:
    """Upload all offline runs in folders, also if these were moved.

    Args:
        folders: Folders of folds, of experiments, or of all outputs.
        dry_run: Only correct the paths in the files and list the runs, without uploading them.

    Raises:
        MissingInputError: A folder contains no offline runs.
        InputError: The upload fails.
    """
    runs: list[Path] = []
    for folder in folders:
        offline = sorted(folder.rglob("wandb/offline-run-*"))
        if not offline:
            raise MissingInputError(f"{folder} contains no wandb/offline-run-*; expected offline W&B runs.")
        runs += offline
    for run in runs:
        print(f"{run}: {correct_paths(run)} paths of tables corrected")
    if dry_run:
        return
    command = [sys.executable, "-m", "wandb", "sync", *(str(run) for run in runs)]
    if subprocess.run(command, check=False).returncode:
        raise InputError(
            "wandb sync has not uploaded all runs (see above); expected a login (wandb login) and a network connection."
        )


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
    from wandb.proto import wandb_internal_pb2

    file = next(iter(sorted(run.glob("*.wandb"))), None)
    if file is None:
        raise MissingInputError(f"{run} contains no .wandb file; expected the folder of an offline run.")
    staged = run.absolute().parent / "data" / "artifacts" / "staging"
    content = file.read_bytes()
    payloads, corrected = [], 0
    for payload in _records(content, file):
        record = wandb_internal_pb2.Record.FromString(payload)  # type: ignore[attr-defined]
        entries = [*record.artifact.manifest.contents, *record.request.log_artifact.artifact.manifest.contents]
        for entry in entries:
            path = staged / os.path.basename(entry.local_path)  # noqa: PTH119 (it may be a path of another system)
            if entry.local_path and str(path) != entry.local_path and path.is_file():
                entry.local_path = str(path)
                corrected += 1
        payloads.append(record.SerializeToString() if entries else payload)
    if corrected:
        partial = file.with_suffix(".partial")
        partial.write_bytes(content[:HEADER_BYTES] + b"".join(_framed(payloads)))
        partial.replace(file)
    return corrected


def _records(content: bytes, file: Path) -> Iterator[bytes]:
    """Split the log into records."""
    if content[:4] != b":W&B":
        raise InputError(f"{file} does not start with the header of a W&B run.")
    position, parts = HEADER_BYTES, b""
    while position + HEADER_BYTES <= len(content):
        remaining = BLOCK_BYTES - position % BLOCK_BYTES
        if remaining < HEADER_BYTES:
            position += remaining
            continue
        check, length, kind = struct.unpack_from("<IHB", content, position)
        data = content[position + HEADER_BYTES : position + HEADER_BYTES + length]
        if len(data) < length:
            return  # The process was killed while it was writing this record.
        if zlib.crc32(data, zlib.crc32(bytes([kind]))) != check or kind not in (FULL, FIRST, MIDDLE, LAST):
            raise InputError(f"{file} is damaged at byte {position}; expected a log of W&B records.")
        parts = data if kind in (FULL, FIRST) else parts + data
        if kind in (FULL, LAST):
            yield parts
        position += HEADER_BYTES + length


def _framed(payloads: Sequence[bytes]) -> Iterator[bytes]:
    """Join records to a log."""
    position = HEADER_BYTES
    for payload in payloads:
        data, kind_if_split, kind_if_complete = payload, FIRST, FULL
        while True:
            remaining = BLOCK_BYTES - position % BLOCK_BYTES
            if remaining < HEADER_BYTES:
                yield bytes(remaining)
                position += remaining
                remaining = BLOCK_BYTES
            part, data = data[: remaining - HEADER_BYTES], data[remaining - HEADER_BYTES :]
            kind = kind_if_split if data else kind_if_complete
            yield struct.pack("<IHB", zlib.crc32(part, zlib.crc32(bytes([kind]))), len(part), kind) + part
            position += HEADER_BYTES + len(part)
            if not data:
                break
            kind_if_split, kind_if_complete = MIDDLE, LAST
