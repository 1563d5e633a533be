"""Confidence maps on the GPU: many frames at a time, by the algorithm of the CPU.

Every step works on all frames of a chunk and, in the elimination, on all fronts of one level of the dissection. The
kernels are in ``kernels.cu``; what calls them takes its arrays and launches from a
:class:`cm_lightning.confidence.cuda.device.Device`, of which the tests have one without a GPU.
"""

from cm_lightning.confidence.cuda.engine import gradient, solve
from cm_lightning.confidence.cuda.memory import bytes_per_frame

__all__ = ["bytes_per_frame", "gradient", "solve"]
