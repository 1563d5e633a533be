"""Compilation of the CPU's kernels before they are needed, with a word to whoever waits for it."""

import sys
import threading
from functools import lru_cache

import numpy as np

from cm_lightning.confidence.boundary import find_boundary
from cm_lightning.confidence.cpu.conjugate_gradients import conjugate_gradients, direct
from cm_lightning.confidence.cpu.elimination import factorise
from cm_lightning.confidence.cpu.equations import frame_equations
from cm_lightning.confidence.cpu.memory import make_factor, make_workspace
from cm_lightning.confidence.dissection import dissect
from cm_lightning.confidence.weights import WeightFunction

# Seconds after which somebody who waits is told what for.
PATIENCE = 3.0


@lru_cache
def compile_once(double: bool) -> None:
    """Solve a tiny system; if that takes long, tell on the error stream what the wait is for.

    Args:
        double: Whether for factors in float64 rather than float32.
    """
    text = "Compiling the confidence-map solver for this processor: up to a minute, once (kept on disk) ..."
    message = threading.Timer(PATIENCE, lambda: print(text, file=sys.stderr, flush=True))
    message.daemon = True
    message.start()
    shape = (9, 9)
    dtype: type[np.floating] = np.float64 if double else np.float32
    dissection = dissect(*shape)
    shared = (dissection, 1.0, make_factor(dissection, dtype), make_workspace(dissection, dtype))
    weight_function = WeightFunction("reference", "frame", alpha=1.0, beta=1.0, gamma=0.0)
    boundary = find_boundary(shape, None, None, None, None, "all")
    _, network = frame_equations(weight_function, np.zeros(shape), boundary)
    factorise(network, *shared)
    if double:
        direct(network, network.right, *shared, False, np.empty(shape))
    else:
        conjugate_gradients(network, network.right, *shared, 1e-3, False, 1, np.empty(shape))
    message.cancel()
