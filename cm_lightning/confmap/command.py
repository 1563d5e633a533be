"""Maps of many files: reading ahead, solving, writing, and a table of the results."""

import glob
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cm_lightning.confidence import SOLVER_VERSION, MaskRegion, geometry_to_dict
from cm_lightning.confidence.domain import FINDER_VERSION
from cm_lightning.confmap.files import InputFile, find_inputs, map_file, preview_file
from cm_lightning.confmap.recording import MapSettings, Recording, chunks, layout_of_map, open_recording
from cm_lightning.confmap.solving import Totals, can_be_solved_together, solve_frames, solve_pictures
from cm_lightning.confmap.table import ResultTable, Row
from cm_lightning.io import FrameWriter, is_picture

# Number of frames that are solved in one call, and of files that are read ahead, which may be large volumes.
FRAMES_AT_ONCE = 32
FILES_AHEAD = 1


def map_files(paths: Sequence[Path], output: Path, settings: MapSettings, overwrite: bool = False) -> list[str]:
    """Compute the confidence maps of files, and write them with a table.

    A file that fails does not stop the others. Files whose maps were written by an earlier run with the same settings
    are skipped.

    Args:
        paths: Image files, and folders of image files.
        output: Folder of the maps and of the table.
        settings: Settings of the maps.
        overwrite: Whether to compute all maps again.

    Returns:
        Names of the files that failed. The reasons are printed, and are in the table.

    Raises:
        InputError: A folder contains no image files.
    """
    files = find_inputs(paths, output)
    table = ResultTable(output)
    keys = {file: _key(file, settings) for file in files}
    remaining = [file for file in files if overwrite or not table.finished(file.name, keys[file])]
    if len(remaining) < len(files):
        print(f"{len(files) - len(remaining)} of {len(files)} files were finished by an earlier run; they are skipped.")
    run = _Run(output, settings, table, keys, len(remaining))
    try:
        run.process(remaining)
    finally:
        run.bar.close()
        if table.rows:
            table.save()
    return run.failures


class _Run:
    """One call of :func:`map_files`."""

    def __init__(
        self, output: Path, settings: MapSettings, table: ResultTable, keys: dict[InputFile, str], count: int
    ) -> None:
        self._output = output
        self._settings = settings
        self._table = table
        self._keys = keys
        self._waiting = count  # files whose number of frames is not yet known
        self._opened_files = 0
        self._opened_frames = 0
        # Pictures are written by another thread.
        self._lock = threading.Lock()
        self.failures: list[str] = []
        self.bar = tqdm(total=count, unit="frame", desc="Confidence maps", smoothing=0.1, disable=None)

    def process(self, files: Sequence[InputFile]) -> None:
        """Compute the maps of files. Pictures of the same size are solved together."""
        group: list[Recording] = []
        with ThreadPoolExecutor(FILES_AHEAD) as readers, ThreadPoolExecutor(1) as writer:
            for file, reading in _read_ahead(files, self._settings, readers):
                self._waiting -= 1
                try:
                    recording = reading.result()
                except Exception as error:  # the other files go on, whatever is wrong with this one
                    self._fail(file, error)
                    continue
                finally:
                    del reading  # which keeps the file in memory
                self._count(recording)
                if group and (len(recording.frames) > 1 or not can_be_solved_together(group[0], recording)):
                    self._map_pictures(group, writer)
                    group = []
                if len(recording.frames) > 1:
                    self._map_sequence(recording)
                else:
                    group.append(recording)
                del recording
                if len(group) == FRAMES_AT_ONCE:
                    self._map_pictures(group, writer)
                    group = []
            if group:
                self._map_pictures(group, writer)

    def _count(self, recording: Recording) -> None:
        """Estimate the total number of frames: that of the files which were opened, and their mean for the others."""
        self._opened_files += 1
        self._opened_frames += len(recording.frames)
        self.bar.total = self._opened_frames + round(self._waiting * self._opened_frames / self._opened_files)

    def _map_sequence(self, recording: Recording) -> None:
        totals = Totals()
        try:
            path = map_file(recording.file, recording.image, self._settings.format)
            wanted = preview_frames_of(recording, self._settings)
            kept: list[NDArray[Any]] = []
            start = 0
            with self._writer(path, recording) as file:
                for frames in chunks(recording, FRAMES_AT_ONCE):
                    begin = time.perf_counter()
                    maps, info, domain = solve_frames(self._settings.solver, frames, recording, self._settings.certify)
                    totals.add(maps, domain, info, slice(None), time.perf_counter() - begin)
                    file.write(maps)
                    kept += [maps[index - start] for index in wanted if start <= index < start + len(maps)]
                    start += len(maps)
                    self.bar.update(len(maps))
            self._finish(recording, path, totals, wanted, np.stack(kept) if kept else np.empty((0, 1, 1)))
        except Exception as error:  # the other files go on, whatever is wrong with this one
            self._fail(recording.file, error)

    def _map_pictures(self, group: Sequence[Recording], writer: ThreadPoolExecutor) -> None:
        begin = time.perf_counter()
        try:
            maps, info, domain = solve_pictures(self._settings.solver, group, self._settings.certify)
        except Exception as error:
            if len(group) == 1:
                self._fail(group[0].file, error)
            else:  # one of them is invalid
                for recording in group:
                    self._map_pictures([recording], writer)
            return
        seconds = (time.perf_counter() - begin) / len(group)
        for number, recording in enumerate(group):
            which = slice(number, number + 1)
            totals = Totals()
            totals.add(maps[which], domain[which], info, which, seconds)
            writer.submit(self._write_picture, recording, maps[which], totals)

    def _write_picture(self, recording: Recording, maps: NDArray[Any], totals: Totals) -> None:
        try:
            path = map_file(recording.file, recording.image, self._settings.format)
            with self._writer(path, recording) as file:
                file.write(maps)
            wanted = preview_frames_of(recording, self._settings)
            self._finish(recording, path, totals, wanted, maps[: len(wanted)])
        except Exception as error:
            self._fail(recording.file, error)
        self.bar.update(1)

    def _writer(self, path: Path, recording: Recording) -> FrameWriter:
        path.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in path.parent.glob(f".{glob.escape(path.name)}.*partial"):  # by a killed run
            abandoned.unlink(missing_ok=True)
        name = self._settings.dtype or ("uint16" if path.suffix == ".png" else "float32")
        image, axes = layout_of_map(recording, is_picture(path))
        return FrameWriter(path, image, axes, np.dtype(name), display_range=(0.0, 1.0))

    def _finish(
        self, recording: Recording, path: Path, totals: Totals, previewed: NDArray[np.int64], maps: NDArray[Any]
    ) -> None:
        """Draw the preview, add a row to the table, and print a line."""
        geometry = recording.geometry
        if len(previewed):
            # Matplotlib takes time to import, and is only needed here.
            from cm_lightning.confmap.preview import save_preview

            save_preview(preview_file(recording.file.target, len(recording.frames)), recording, previewed, maps)
        shape = geometry.shape
        remarks = list(recording.remarks)
        if not totals.error_estimate <= self._settings.solver.tolerance:
            remarks.append(f"The estimated error, {totals.error_estimate:.1e}, exceeds the tolerance.")
        _, depth, lateral = recording.frames.shape
        row = Row(
            file=recording.file.name,
            output=path.relative_to(self._output).as_posix(),
            status="ok",
            frames=str(len(recording.frames)),
            depth=str(depth),
            lateral=str(lateral),
            axes=recording.axes.text,
            geometry=geometry.kind if shape is None else shape.kind,
            score=f"{geometry.score:.3f}",
            up=recording.up,
            parameters="" if shape is None or isinstance(shape, MaskRegion) else json.dumps(geometry_to_dict(shape)),
            mean_confidence=f"{totals.mean_confidence:.4f}",
            error_estimate=f"{totals.error_estimate:.1e}",
            error_bound=f"{totals.error_bound:.1e}" if self._settings.certify else "",
            direct_frames=str(totals.fallbacks),
            seconds=f"{totals.seconds:.3f}",
            remarks=" ".join(remarks),
            key=self._keys[recording.file],
        )
        with self._lock:
            self._table.add(row)
            tqdm.write(_summary(row))
            for remark in remarks:
                tqdm.write(f"  {remark}")

    def _fail(self, file: InputFile, error: Exception) -> None:
        reason = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, ValueError | OSError):  # not an error that the user can fix
            reason = f"{file.path} cannot be processed ({type(error).__name__}: {reason})"
        if str(file.path) not in reason:
            reason = f"{file.path}: {reason}"
        with self._lock:
            self.failures.append(file.name)
            self._table.add(Row(file.name, remarks=reason, key=self._keys[file]))
            tqdm.write(f"error: {reason}", file=sys.stderr)


def preview_frames_of(recording: Recording, settings: MapSettings) -> NDArray[np.int64]:
    """Return the frames that the preview of a recording shows; none if there is no preview."""
    if not settings.preview:
        return np.empty(0, np.int64)
    from cm_lightning.confmap.preview import preview_frames

    return preview_frames(len(recording.frames))


def _read_ahead(
    files: Sequence[InputFile], settings: MapSettings, readers: ThreadPoolExecutor
) -> Iterator[tuple[InputFile, "Future[Recording]"]]:
    """Yield files that are being read, while the next ones are read already."""
    pending: list[tuple[InputFile, Future[Recording]]] = []
    for file in files:
        pending.append((file, readers.submit(open_recording, file, settings)))
        if len(pending) > FILES_AHEAD:
            yield pending.pop(0)
    yield from pending


def _key(file: InputFile, settings: MapSettings) -> str:
    """Return a digest of everything on which a map depends; the input is identified by its size and time."""
    values = asdict(settings)
    for name in ("max_batch", "backend"):  # These do not affect the map.
        del values["solver"][name]
    status = file.path.stat() if file.path.is_file() else None
    values["input"] = status and (str(file.path.resolve()), status.st_size, status.st_mtime_ns)
    if isinstance(settings.domain, Path) and settings.domain.is_file():
        values["geometry"] = blake2b(settings.domain.read_bytes()).hexdigest()
    values["versions"] = (SOLVER_VERSION, FINDER_VERSION)
    return blake2b(json.dumps(values, sort_keys=True, default=str).encode(), digest_size=12).hexdigest()


def _summary(row: Row) -> str:
    """Return the line for a finished file."""
    frames = "" if row.frames == "1" else f"{row.frames} frames of "
    bound = f", error at most {row.error_bound}" if row.error_bound else ""
    return (
        f"{row.file}: {frames}{row.depth} x {row.lateral}, {row.geometry} (score {row.score}), mean confidence "
        f"{row.mean_confidence}{bound}, {row.seconds} s"
    )
