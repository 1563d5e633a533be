"""Upload offline runs of W&B from folders that were moved or copied since they were written."""

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from cm_lightning.errors import InputError, MissingInputError

# A run's file is a log in the format of LevelDB (https://github.com/google/leveldb/blob/main/doc/log_format.md) after a
# header of its own; the check sum is zlib's.
HEADER_BYTES = 7
BLOCK_BYTES = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def sync(folders: Sequence[Path], dry_run: bool = False) -> None:
    """Upload the offline runs in folders of runs, wherever they were written.

    Args:
        folders: Folders of folds, of experiments or of all outputs.
        dry_run: List the runs, with their paths corrected, and upload nothing.

    Raises:
        InputError: A folder has no offline runs, or wandb did not upload them.
    """
    runs: list[Path] = []
    for folder in folders:
        offline = sorted(folder.rglob("wandb/offline-run-*"))
        if not offline:
            raise MissingInputError(f"There is no wandb/offline-run-* in {folder}; expected runs logged offline.")
        runs += offline
    for run in runs:
        print(f"{run}: {correct_paths(run)} paths of tables corrected")
    if dry_run:
        return
    command = [sys.executable, "-m", "wandb", "sync", *(str(run) for run in runs)]
    if subprocess.run(command, check=False).returncode:
        raise InputError(
            "wandb sync did not upload all runs (see above); expected a login (wandb login) and a network."
        )


def correct_paths(run: Path) -> int:
    """Let a run's file name the files of its tables where they are now.

    Args:
        run: The folder ``offline-run-...`` in the folder ``wandb`` of a run.

    Returns:
        How many paths were wrong; 0 where nothing was moved, and the file is left alone.

    Raises:
        MissingInputError: There is no run's file in it.
        InputError: It is not one that wandb wrote.
    """
    from wandb.proto import wandb_internal_pb2

    file = next(iter(sorted(run.glob("*.wandb"))), None)
    if file is None:
        raise MissingInputError(f"There is no .wandb file in {run}; expected the folder of an offline run.")
    staged = run.absolute().parent / "data" / "artifacts" / "staging"
    content = file.read_bytes()
    payloads, corrected = [], 0
    for payload in _records(content, file):
        record = wandb_internal_pb2.Record.FromString(payload)  # type: ignore[attr-defined]
        entries = [*record.artifact.manifest.contents, *record.request.log_artifact.artifact.manifest.contents]
        for entry in entries:
            here = staged / os.path.basename(entry.local_path)  # noqa: PTH119 (it may be a path of another system)
            if entry.local_path and str(here) != entry.local_path and here.is_file():
                entry.local_path = str(here)
                corrected += 1
        payloads.append(record.SerializeToString() if entries else payload)
    if corrected:
        partial = file.with_suffix(".partial")
        partial.write_bytes(content[:HEADER_BYTES] + b"".join(_framed(payloads)))
        partial.replace(file)
    return corrected


def _records(content: bytes, file: Path) -> Iterator[bytes]:
    """Take the log apart."""
    if content[:4] != b":W&B":
        raise InputError(f"{file} does not begin as a run's file of wandb does.")
    place, parts = HEADER_BYTES, b""
    while place + HEADER_BYTES <= len(content):
        left = BLOCK_BYTES - place % BLOCK_BYTES
        if left < HEADER_BYTES:
            place += left
            continue
        check, length, kind = struct.unpack_from("<IHB", content, place)
        data = content[place + HEADER_BYTES : place + HEADER_BYTES + length]
        if len(data) < length:
            return  # the process was killed while it wrote this
        if zlib.crc32(data, zlib.crc32(bytes([kind]))) != check or kind not in (FULL, FIRST, MIDDLE, LAST):
            raise InputError(f"{file} is damaged at byte {place}; expected a log of wandb's records.")
        parts = data if kind in (FULL, FIRST) else parts + data
        if kind in (FULL, LAST):
            yield parts
        place += HEADER_BYTES + length


def _framed(payloads: Sequence[bytes]) -> Iterator[bytes]:
    """Put the log together again."""
    place = HEADER_BYTES
    for payload in payloads:
        rest, kind_if_more, kind_if_all = payload, FIRST, FULL
        while True:
            left = BLOCK_BYTES - place % BLOCK_BYTES
            if left < HEADER_BYTES:
                yield bytes(left)
                place += left
                left = BLOCK_BYTES
            part, rest = rest[: left - HEADER_BYTES], rest[left - HEADER_BYTES :]
            kind = kind_if_more if rest else kind_if_all
            yield struct.pack("<IHB", zlib.crc32(part, zlib.crc32(bytes([kind]))), len(part), kind) + part
            place += HEADER_BYTES + len(part)
            if not rest:
                break
            kind_if_more, kind_if_all = MIDDLE, LAST
