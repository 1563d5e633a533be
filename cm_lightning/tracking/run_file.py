"""The file of a W&B run: a log of records, in the format of LevelDB with an additional header."""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.writing import replaced

if TYPE_CHECKING:
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

# See https://github.com/google/leveldb/blob/main/doc/log_format.md; the check sum is that of zlib.
HEADER_BYTES = 7
BLOCK_BYTES = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def find_run_file(run: Path) -> Path:
    """Return the file of a run.

    Args:
        run: The folder ``offline-run-...`` in the folder ``wandb`` of a run.

    Returns:
        The file with the suffix ``.wandb``.

    Raises:
        MissingInputError: There is none.
    """
    file = next(iter(sorted(run.glob("*.wandb"))), None)
    if file is None:
        raise MissingInputError(f"{run} contains no .wandb file; expected the folder of an offline run.")
    return file


def change_records(source: Path, target: Path, change: Callable[["Record"], bool]) -> None:
    """Change the records of a run.

    Args:
        source: File of the run.
        target: File with the changed records, which may be the same one. It is not written if nothing changes.
        change: Changes a record, and returns whether it did.

    Raises:
        InputError: The file was not written by W&B, or is damaged.
    """
    from wandb.proto import wandb_internal_pb2

    content = source.read_bytes()
    payloads, has_changed = [], source != target
    for payload in _records(content, source):
        record = wandb_internal_pb2.Record.FromString(payload)  # type: ignore[attr-defined]
        if change(record):
            has_changed, payload = True, record.SerializeToString()
        payloads.append(payload)
    if has_changed:
        with replaced(target) as partial:
            partial.write_bytes(content[:HEADER_BYTES] + b"".join(_framed(payloads)))


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
