"""
Losses with confidence
======================

The loss of one voxel of the class, as a function of its predicted probability, for several values of its confidence.
"""

import matplotlib.pyplot as plt
import torch

from cm_lightning.losses import ConfidenceCrossEntropy

probability = torch.linspace(0.005, 0.995, 199)
logits = torch.stack([(1 - probability).log(), probability.log()], dim=1)  # (voxels, background and class)
label = torch.ones(len(probability), 1, dtype=torch.long)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
for axis, target in zip(axes, ("mask", "soft"), strict=True):
    loss = ConfidenceCrossEntropy(target)
    for confidence in (0.1, 0.5, 0.9):
        given = torch.full((1, 1), confidence)
        values = torch.stack([loss(logits[i : i + 1], label[i : i + 1], given) for i in range(len(logits))])
        (line,) = axis.plot(probability, values, label=f"confidence {confidence:g}")
        best = values.argmin()
        axis.plot(probability[best], values[best], "o", color=line.get_color())
    axis.set(xlabel="predicted probability of the class", title=f"target {target}", ylim=(0, 3))
axes[0].set_ylabel("loss of the voxel")
axes[0].legend()
plt.show()

# %%
# The mask of the study scales the loss; its minimum is at a probability of 1 for any confidence. With the soft
# target, the minimum is where the probability equals the confidence.
