"""
The grid and smoothing
======================

The same frame with the same alpha, beta and gamma has different maps on different grids, and after smoothing. The
parameters mean something only together with a pixel size.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data import Phantom

phantom = Phantom("muscle", patients=1, size=(384, 384, 1), spacing=(0.13, 0.13, 1.0))
frame = phantom.simulate(0).image[:, :, 0].astype(np.float64)
solver = ConfidenceMapSolver(alpha=0.5, beta=100.0, gamma=0.05)


def reduce(image, factor):
    """Average blocks of pixels."""
    rows, columns = (n // factor for n in image.shape)
    return image.reshape(rows, factor, columns, factor).mean((1, 3))


def draw(frames, titles):
    """Draw maps, and their means over the columns."""
    figure, axes = plt.subplots(1, len(frames) + 1, figsize=(13, 2.9), layout="constrained")
    for axis, image, title in zip(axes, frames, titles, strict=False):
        confidence = solver(image)
        picture = axis.imshow(confidence, vmin=0, vmax=1)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
        axes[-1].plot(np.linspace(0, 1, len(image)), confidence.mean(1), label=title)
    figure.colorbar(picture, ax=axes[:-1])
    axes[-1].set(xlabel="depth", ylabel="mean confidence")
    axes[-1].legend(fontsize=6)
    plt.show()


# %%
# Grids
# -----

factors = (1, 2, 4, 8)
draw([reduce(frame, factor) for factor in factors], [f"pixels of {0.13 * factor:.2f} mm" for factor in factors])

# %%
# Smoothing
# ---------
# The speckle is smoothed by a Gaussian filter. The grid is the same in all panels.

widths = (0, 1, 2, 4)
draw([ndimage.gaussian_filter(frame, width) for width in widths], [f"SD of {width} pixels" for width in widths])
