"""Compilation of the CPU solver before its first use, with a message if this takes several seconds."""

import sys
import threading
from functools import lru_cache
from pathlib import Path

import numpy as np

from cm_lightning.confidence.cpu.conjugate_gradients import conjugate_gradients
from cm_lightning.confidence.cpu.factorisation import LaneFactorisation, TreeFactorisation
from cm_lightning.confidence.cpu.lanes import factorise_lanes
from cm_lightning.confidence.cpu.plan import CELL
from cm_lightning.confidence.cpu.threads import ONE_THREAD
from cm_lightning.confidence.graph import RandomWalkGraph

# Time in seconds after which a message about the compilation is printed.
MESSAGE_DELAY = 2.0


@lru_cache
def compile_once(double: bool, small: bool) -> None:
    """Compile the solver, or load its compiled code from disk, and print a message if this takes several seconds.

    Args:
        double: Whether the factor is stored in float64 rather than float32.
        small: Whether frames are small; see :func:`cm_lightning.confidence.cpu.factorisation.lanes_of`.
    """
    text = "Compiling the confidence map solver for this processor (up to 20 s; the result is cached on disk) ..."
    message = threading.Timer(MESSAGE_DELAY, lambda: print(text, file=sys.stderr, flush=True))
    message.daemon = True
    message.start()
    try:
        _solve_test_system(double, small)
    except (ImportError, AttributeError):
        # Compiled code of an earlier version of this package may refer to a class that has been renamed since. In this
        # case, Numba raises an error instead of compiling the code again.
        cache = factorise_lanes.stats.cache_path
        if cache is None:
            raise
        for index_file in Path(cache).glob("*.nbi"):
            index_file.unlink(missing_ok=True)
        _solve_test_system(double, small)
    finally:
        message.cancel()


def _solve_test_system(double: bool, small: bool) -> None:
    """Solve a system of ones, which calls every compiled function of the elimination."""
    dtype: type[np.floating] = np.float64 if double else np.float32
    # The large frame has several parts.
    depth, lateral = shape = (4, 5) if small else (7 * CELL, 7 * CELL)
    factorisation = LaneFactorisation(shape, dtype) if small else TreeFactorisation(shape, dtype, 1)
    lanes = factorisation.lanes
    width, inner = lateral * lanes, (lateral - 1) * lanes
    graph = RandomWalkGraph(
        vertical=np.ones((depth - 1, width)),
        horizontal=np.ones((depth, inner)),
        down_right=np.ones((depth - 1, inner)),
        down_left=np.ones((depth - 1, inner)),
        slack=np.ones((depth, width)),
        unknown=np.ones((depth, width), np.bool_),
        rhs=np.ones((depth, width)),
    )
    factorisation.factorise(graph, ONE_THREAD)
    usable = np.ones(lanes, np.bool_)
    x = np.empty((depth, width))
    buffers = np.empty((3, depth, width))
    conjugate_gradients(graph, graph.rhs, factorisation, 1e-3, False, 1, usable, x, buffers, ONE_THREAD)
