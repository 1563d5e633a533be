"""Checking cases before a stage begins, and computing the confidence maps that are not on disk yet."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from lightning_utilities.core.rank_zero import rank_zero_info
from tqdm import tqdm

from cm_lightning.data.cases import Case, describe_axes
from cm_lightning.data.confidence_maps import ConfidenceCache
from cm_lightning.data.reading import CaseReader, ReadCase


def check_cases(
    cases: Sequence[Case], reader: CaseReader, cache: ConfidenceCache | None, pass_on: Callable[[ReadCase], None]
) -> tuple[int, float]:
    """Read and check every case, then compute the maps that are missing: bad input is reported before time is spent.

    Args:
        cases: Which cases.
        reader: Reads them.
        cache: Where their maps are kept, or None for no maps.
        pass_on: Is given every case once it is no longer needed here, from several threads.

    Returns:
        Number of frames whose maps were computed, and the seconds that this took.

    Raises:
        InputError: A case is not as expected.
    """
    missing: dict[Case, int] = {}
    for index, case in enumerate(tqdm(cases, desc="Checking cases", unit="case")):
        read = reader.read(case)
        if index == 0:
            rank_zero_info(f"Axes of {case.image.name} ({reader.axes.text}): {describe_axes(read.arrays)}.")
        if cache is None or cache.path(case.image).is_file():
            pass_on(read)
        else:
            missing[case] = read.frames
            reader.hold(read)
    if cache is None or not missing:
        return 0, 0.0
    start, total = time.perf_counter(), sum(missing.values())
    # The solver takes the frames of a volume side by side; single frames need their cases side by side.
    workers = 1 if len(reader.axes.names) == 3 else os.cpu_count()
    with tqdm(total=total, desc="Confidence maps", unit="frame") as bar, ThreadPoolExecutor(workers) as pool:

        def compute(case: Case) -> None:
            read = reader.read(case)
            for frames in cache.compute(case.image, read.arrays.image, read.geometry):
                bar.update(frames)
            pass_on(read)

        list(pool.map(compute, missing))
    seconds = time.perf_counter() - start
    rank_zero_info(f"Computed {total} confidence maps at file resolution, {1000 * seconds / total:.1f} ms a frame.")
    return total, seconds
