"""
Alpha, beta and gamma
=====================

Maps of one frame with the parameters that the study tried, and with other penalties of edges that leave the scan
line.
"""

import matplotlib.pyplot as plt

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data import Phantom

phantom = Phantom("muscle", patients=1, size=(256, 256, 1), spacing=(0.2, 0.2, 1.0))
frame = phantom.simulate(0).image[:, :, 0]

# %%
# Alpha and beta
# --------------
# With a beta of 400, most weights of this frame, which has strong speckle, are close to the minimum of 1e-5: the map
# approaches a ramp that depends on depth only. Alpha has little effect, since differences are divided by the largest
# one.

figure, axes = plt.subplots(1, 5, figsize=(13, 2.9), layout="constrained")
axes[0].imshow(frame, cmap="gray")
axes[0].set_title("frame")
settings = [(0.2, 100.0), (0.5, 100.0), (0.2, 400.0), (0.5, 400.0)]
for axis, (alpha, beta) in zip(axes[1:], settings, strict=True):
    confidence = ConfidenceMapSolver(alpha=alpha, beta=beta)(frame)
    image = axis.imshow(confidence, vmin=0, vmax=1)
    axis.set_title(f"alpha {alpha:g}, beta {beta:g}, mean {confidence.mean():.2f}", fontsize=9)
for axis in axes:
    axis.set_axis_off()
figure.colorbar(image, ax=axes)
plt.show()

# %%
# Gamma
# -----
# Without a penalty, walks leave the scan line as easily as they follow it. With a large penalty, the weights to
# neighbouring columns are close to the minimum, and the bone at the bottom is hardly visible in the map.

figure, axes = plt.subplots(1, 4, figsize=(11, 2.9), layout="constrained")
for axis, gamma in zip(axes, (0.0, 0.03, 0.05, 0.2), strict=True):
    image = axis.imshow(ConfidenceMapSolver(gamma=gamma)(frame), vmin=0, vmax=1)
    axis.set_title(f"gamma {gamma:g}", fontsize=9)
    axis.set_axis_off()
figure.colorbar(image, ax=axes)
plt.show()
