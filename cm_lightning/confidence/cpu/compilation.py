"""Compilation of the CPU solver before its first use, with a message if this takes several seconds."""

import sys
import threading
from functools import lru_cache
from pathlib import Path

import numpy as np

from cm_lightning.confidence.boundary import find_boundary
from cm_lightning.confidence.cpu.conjugate_gradients import conjugate_gradients, direct
from cm_lightning.confidence.cpu.elimination import factorise
from cm_lightning.confidence.cpu.equations import frame_equations
from cm_lightning.confidence.cpu.memory import make_factor, make_workspace
from cm_lightning.confidence.dissection import dissect
from cm_lightning.confidence.weights import WeightFunction

# Time in seconds after which a message about the compilation is printed.
MESSAGE_DELAY = 3.0


@lru_cache
def compile_once(double: bool) -> None:
    """Compile the solver, or load its compiled code from disk, and print a message if this takes several seconds.

    Args:
        double: Whether the factor is stored in float64 rather than float32.
    """
    text = "Compiling the confidence map solver for this processor (up to a minute; the result is cached on disk) ..."
    message = threading.Timer(MESSAGE_DELAY, lambda: print(text, file=sys.stderr, flush=True))
    message.daemon = True
    message.start()
    try:
        _solve_small_system(double)
    except (ImportError, AttributeError):
        # Compiled code of an earlier version of this package may refer to a class that has been renamed since. In this
        # case, Numba raises an error instead of compiling the code again.
        cache = factorise.stats.cache_path
        if cache is None:
            raise
        for index_file in Path(cache).glob("*.nbi"):
            index_file.unlink(missing_ok=True)
        _solve_small_system(double)
    finally:
        message.cancel()


def _solve_small_system(double: bool) -> None:
    """Solve a small system, which calls every compiled function."""
    shape = (9, 9)
    dtype: type[np.floating] = np.float64 if double else np.float32
    dissection = dissect(*shape)
    arguments = (dissection, 1.0, make_factor(dissection, dtype), make_workspace(dissection, dtype))
    weight_function = WeightFunction("reference", "frame", alpha=1.0, beta=1.0, gamma=0.0)
    boundary = find_boundary(shape, None, None, None, None, "all")
    _, graph = frame_equations(weight_function, np.zeros(shape), boundary)
    factorise(graph, *arguments)
    if double:
        direct(graph, graph.rhs, *arguments, False, np.empty(shape))
    else:
        conjugate_gradients(graph, graph.rhs, *arguments, 1e-3, False, 1, np.empty(shape))
