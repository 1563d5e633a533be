"""Confidence maps on the GPU, with the algorithm of the CPU for many frames at once.

Each step processes all frames of a chunk and, in the elimination, all fronts of one level of the dissection. The
kernels are in ``kernels.cu``, ``factor.cu`` and ``equations.cu``. Arrays and kernel launches belong to a
:class:`cm_lightning.confidence.cuda.device.Device`, of which the tests have an implementation without a GPU.
"""

from cm_lightning.confidence.cuda.engine import gradient, solve
from cm_lightning.confidence.cuda.memory import bytes_per_frame

__all__ = ["bytes_per_frame", "gradient", "solve"]
