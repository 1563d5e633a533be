"""
Errors: estimate, bound and truth
=================================

The solver estimates the error of every map, and can prove a bound. Both are compared with the true error, the
difference from a direct solution in float64.
"""

import matplotlib.pyplot as plt
import numpy as np

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data import Phantom

phantom = Phantom("muscle", patients=8, size=(128, 128, 1), spacing=(0.4, 0.4, 1.0))
frames = np.stack([phantom.simulate(patient).image[:, :, 0] for patient in range(8)]).astype(np.float64)

# %%
# Solve all frames with several betas.

points = []
for beta in (40.0, 100.0, 400.0):
    maps, info = ConfidenceMapSolver(beta=beta).solve(frames, certify=True)
    exact = ConfidenceMapSolver(beta=beta, method="direct")(frames)
    true = np.abs(maps - exact).max((1, 2))
    assert (true <= info.error_bound).all()
    points.append((beta, true, info.error_estimate, info.error_bound))
    print(f"beta {beta:g}: {info.iterations.max()} steps, largest true error {true.max():.1e}")

# %%
# Every bound is above the true error (dotted line). The estimates are larger here, but they are not proven.

figure, axis = plt.subplots(figsize=(5, 4.2), layout="constrained")
for (beta, true, estimate, bound), colour in zip(points, ("tab:blue", "tab:orange", "tab:green"), strict=True):
    axis.loglog(true, bound, "o", color=colour, label=f"proven bound, beta {beta:g}")
    axis.loglog(true, np.maximum(estimate, 1e-16), "x", color=colour, label=f"estimate, beta {beta:g}")
limits = [min(point[1].min() for point in points) / 3, max(point[3].max() for point in points) * 3]
axis.loglog(limits, limits, "k:", linewidth=1)
axis.set(xlabel="true maximum error of a map", ylabel="bound or estimate")
axis.legend(fontsize=7)
plt.show()
