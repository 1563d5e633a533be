"""Checks of cases before a stage starts, and computation of missing confidence maps."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from lightning_utilities.core.rank_zero import rank_zero_info
from tqdm import tqdm

from cm_lightning.data.case_contents import CaseContents
from cm_lightning.data.cases import Case, describe_axes
from cm_lightning.data.classes import written_values
from cm_lightning.data.confidence_maps import ConfidenceCache
from cm_lightning.data.reading import CaseReader, ReadCase


def check_cases(
    cases: Sequence[Case], reader: CaseReader, cache: ConfidenceCache | None, on_finished: Callable[[ReadCase], None]
) -> tuple[int, float]:
    """Read and check all cases before computing missing maps, so that errors are reported early.

    Args:
        cases: The cases.
        reader: Reader of the cases.
        cache: Cache of their confidence maps; None if no maps are needed.
        on_finished: Function that is called with every case after it was processed, from several threads.

    Returns:
        Number of frames for which maps were computed, and the duration in seconds.

    Raises:
        InputError: A case is invalid; see :func:`cm_lightning.data.cases.read_case`.
    """
    missing: dict[Case, int] = {}
    contents = CaseContents(list(written_values(reader.classes)))
    for index, case in enumerate(tqdm(cases, desc="Checking cases", unit="case")):
        read = reader.read(case)
        if index == 0:
            rank_zero_info(f"Axes of {case.image.name} ({reader.axes.text}): {describe_axes(read.arrays)}.")
        contents.add(read)
        if cache is None or cache.has_map(case.image, read.arrays.image.shape):
            on_finished(read)
        else:
            missing[case] = read.frames
            reader.keep_in_memory(read)
    contents.check()
    if cache is None or not missing:
        return 0, 0.0
    start, total = time.perf_counter(), sum(missing.values())
    # The solver processes the frames of a volume in parallel. 2D cases are processed in parallel here.
    workers = 1 if len(reader.axes.names) == 3 else os.cpu_count()
    with tqdm(total=total, desc="Confidence maps", unit="frame") as bar, ThreadPoolExecutor(workers) as pool:

        def compute(case: Case) -> None:
            read = reader.read(case)
            for frames in cache.compute(case.image, read.arrays.image, read.geometry):
                bar.update(frames)
            on_finished(read)

        list(pool.map(compute, missing))
    seconds = time.perf_counter() - start
    rank_zero_info(f"Computed {total} confidence maps at file resolution, {1000 * seconds / total:.1f} ms per frame.")
    return total, seconds
