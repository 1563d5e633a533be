"""
From a screen to a confidence map
=================================

A simulated neck, scanned with a convex probe, is placed on a screen with text and a ruler. The insonified region is
found, and the map is computed inside it.
"""

import matplotlib.pyplot as plt
import numpy as np

from cm_lightning.confidence import ConfidenceMapSolver, find_insonified
from cm_lightning.data import Phantom

# %%
# Simulate a frame, and draw a screen around it.

phantom = Phantom("thyroid", patients=1, size=(240, 256, 1), spacing=(0.22, 0.22, 1.0), probe="convex")
volume = phantom.simulate(0)
screen = np.zeros((320, 400), np.uint8)
screen[40:280, 72:328] = volume.image[:, :, 0]
screen[60:260:20, 360:366] = 180  # a ruler
screen[100:200, 20:30] = np.linspace(255, 0, 100)[:, None]  # a grey bar

# %%
# Find the region. The score estimates the probability that its overlap with the true region is at least 0.9.

region = find_insonified(screen, "auto")
print(region.geometry)
print(f"score {region.score:.2f}")

# %%
# Compute the map. The source is the face of the probe, and the sink the far arc; the edges of the fan are neither.

solver = ConfidenceMapSolver(alpha=0.5, beta=100.0, gamma=0.05)
confidence = solver(screen, region.domain, region.source, region.sink)

figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
axes[0].imshow(screen, cmap="gray")
axes[0].set_title("screen")
axes[1].imshow(screen, cmap="gray")
axes[1].contour(region.domain, [0.5], colors="tab:green", linewidths=1)
axes[1].scatter(*np.argwhere(region.source)[:, ::-1].T, s=1, color="tab:orange", label="source")
axes[1].scatter(*np.argwhere(region.sink)[:, ::-1].T, s=1, color="tab:cyan", label="sink")
axes[1].legend(loc="lower left", fontsize=7)
axes[1].set_title("insonified region")
image = axes[2].imshow(np.where(region.domain, confidence, np.nan), vmin=0, vmax=1)
axes[2].set_title("confidence map")
figure.colorbar(image, ax=axes[2])
for axis in axes:
    axis.set_axis_off()
plt.show()

# %%
# A frame of constant intensity
# -----------------------------
# Confidence decreases with depth in any image. In a rectangle of constant intensity, it falls linearly from 1 to 0,
# whatever alpha and beta are.

constant = solver(np.ones((101, 60)))
print(f"difference from a straight line: {np.abs(constant - np.linspace(1, 0, 101)[:, None]).max():.1e}")
