"""Results published by the source study: means and SDs over three folds, for the muscles.

References:
    Gonzalez Duque, Zirus et al., "Can ultrasound confidence maps predict sonographers' labeling variability?", 2023,
    Table 1 and supplement.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """A published mean and SD."""

    mean: float
    sd: float


# Metrics of Table 1, and one row per setting. Settings are named like the configurations.
PUBLISHED_METRICS = ("dice", "precision", "miss_rate", "asd")
_TABLE_1 = {
    "unet_1ch_dicece": ((0.84, 0.02), (0.84, 0.06), (0.16, 0.04), (8.37, 2.19)),
    "unet_2ch_dice": ((0.85, 0.01), (0.85, 0.01), (0.16, 0.02), (8.20, 1.81)),
    "unet_1ch_dicececonf": ((0.81, 0.01), (0.86, 0.05), (0.18, 0.04), (8.36, 0.78)),
    "attunet_1ch_ce": ((0.57, 0.49), (0.58, 0.50), (0.44, 0.49), (40.00, 15.01)),
    "attunet_2ch_dice": ((0.86, 0.00), (0.85, 0.04), (0.12, 0.04), (7.03, 1.08)),
    "attunet_1ch_dicececonf": ((0.57, 0.50), (0.59, 0.51), (0.44, 0.48), (40.00, 14.09)),
    "deepatlas_1ch_dice": ((0.82, 0.02), (0.84, 0.05), (0.18, 0.06), (11.22, 1.54)),
    "deepatlas_2ch_dice": ((0.84, 0.01), (0.84, 0.06), (0.15, 0.07), (11.89, 6.00)),
    "deepatlas_1ch_dicececonf": ((0.85, 0.01), (0.84, 0.02), (0.13, 0.02), (11.74, 5.50)),
    "unetr_1ch_ce": ((0.66, 0.06), (0.72, 0.12), (0.37, 0.02), (23.52, 8.97)),
    "unetr_2ch_dice": ((0.48, 0.12), (0.77, 0.11), (0.62, 0.12), (23.74, 8.72)),
    "unetr_1ch_dicececonf": ((0.56, 0.07), (0.82, 0.13), (0.55, 0.09), (19.54, 9.65)),
}
PUBLISHED = {
    setting: {name: Published(*value) for name, value in zip(PUBLISHED_METRICS, values, strict=True)}
    for setting, values in _TABLE_1.items()
}

# Supplement: other parameters of the maps. Names contain beta and alpha if they are not 100 and 0.5.
SUPPLEMENT_METRICS = ("dice", "iou", "precision", "miss_rate", "asd")
_SUPPLEMENT = {
    "unet_2ch_dice": ((0.84, 0.03), (0.75, 0.04), (0.91, 0.04), (0.20, 0.03), (4.41, 5.13)),
    "unet_2ch_dice_beta400_alpha0.2": ((0.84, 0.03), (0.75, 0.05), (0.88, 0.06), (0.14, 0.03), (11.87, 5.31)),
    "unet_2ch_dice_beta100_alpha0.2": ((0.83, 0.02), (0.73, 0.03), (0.84, 0.04), (0.15, 0.03), (14.84, 1.15)),
    "unet_1ch_ceconf": ((0.83, 0.04), (0.73, 0.06), (0.87, 0.05), (0.17, 0.04), (15.57, 2.68)),
    "unet_1ch_ceconf_beta400_alpha0.5": ((0.82, 0.03), (0.72, 0.05), (0.90, 0.06), (0.20, 0.02), (10.15, 2.55)),
    "unet_1ch_ceconf_beta100_alpha0.2": ((0.82, 0.04), (0.72, 0.07), (0.86, 0.06), (0.16, 0.03), (13.58, 4.67)),
}
SUPPLEMENT = {
    setting: {name: Published(*value) for name, value in zip(SUPPLEMENT_METRICS, values, strict=True)}
    for setting, values in _SUPPLEMENT.items()
}

# Baseline of each network.
BASELINES = {"unet": "1ch_dicece", "attunet": "1ch_ce", "deepatlas": "1ch_dice", "unetr": "1ch_ce"}


def setting_of(model: str) -> str:
    """Return the name of an experiment without the data set: ``unet_2ch_dice`` for ``muscle_unet_2ch_dice``."""
    return model.partition("_")[2]


def baseline_of(model: str) -> str | None:
    """Return the baseline with which the study compares an experiment.

    Args:
        model: Name of the experiment, ``<data>_<network>_<input>_<loss>``.

    Returns:
        Name of the baseline; None if the experiment is a baseline or has another kind of name.
    """
    parts = model.split("_")
    if len(parts) < 4 or parts[1] not in BASELINES:
        return None
    name = f"{parts[0]}_{parts[1]}_{BASELINES[parts[1]]}"
    return None if name == model else name
