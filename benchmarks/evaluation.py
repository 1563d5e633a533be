"""Time and memory of the evaluation of 16 phantom volumes, compared with the functional metrics of MONAI.

    python benchmarks/evaluation.py [--volumes 16] [--size 128]

Both evaluate the same masks, one after the other in one process: labels of muscle phantoms, and predictions that are
deformed labels with isolated wrong voxels. For MONAI, one function is called per metric: confusion-matrix metrics,
Dice, IoU, Hausdorff distance (maximum and 95th percentile), average surface distance and surface Dice.
"""

import argparse
import tracemalloc
from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_confusion_matrix_metric,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
    get_confusion_matrix,
)
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from torch.nn import functional as F

from cm_lightning.data import Phantom
from cm_lightning.metrics import case_rows
from cm_lightning.metrics.calibration import calibration_rows
from cm_lightning.metrics.levels import confidence_levels, depth_levels, level_rows

CLASSES = ["soleus", "gastrocnemius_medialis", "gastrocnemius_lateralis"]


def make_pair(phantom: Phantom, patient: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Simulate a label, and a prediction that is the deformed label with isolated wrong voxels."""
    values = sorted(phantom.classes.values())
    label = np.searchsorted(values, phantom.simulate(patient).label, side="right").astype(np.uint8)
    generator = np.random.default_rng(patient)
    size = np.array(label.shape)
    displacement = [ndimage.zoom(generator.normal(0, 1.5, (4, 4, 4)), size / 4, order=1) for _ in range(3)]
    grid = np.indices(label.shape)
    index = np.array([value.astype(int) for value in np.array(displacement) + grid])
    prediction: NDArray[np.uint8] = label[tuple(np.clip(index, 0, (size - 1)[:, None, None, None]))]
    prediction[generator.random(label.shape) < 1e-5] = 1
    return torch.from_numpy(prediction), torch.from_numpy(np.ascontiguousarray(label))


def evaluate_with_package(
    prediction: torch.Tensor, label: torch.Tensor, spacing: tuple[float, ...]
) -> dict[str, float]:
    """Evaluate a case as ``test`` does, including calibration and errors by confidence and by depth."""
    rows = case_rows(prediction, label, CLASSES, spacing)
    probabilities = ((prediction == index).float().mul_(0.9).add_(0.05) for index in range(1, len(CLASSES) + 1))
    domain = torch.ones(label.shape, dtype=torch.bool)
    confidence = torch.linspace(1, 0, len(label))[:, None, None].expand(label.shape)
    levels = {"confidence": confidence_levels(confidence, domain), "depth": depth_levels(domain)}
    level_rows(prediction, label, CLASSES, levels)
    calibration_rows(probabilities, label, CLASSES, domain)
    return {f"{row['metric']}/{row['class']}": row["value"] for row in rows}


def metrics_with_package(prediction: torch.Tensor, label: torch.Tensor, spacing: tuple[float, ...]) -> dict[str, float]:
    """Compute only the metrics of a case that do not need probabilities, which contain those of MONAI."""
    return {f"{row['metric']}/{row['class']}": row["value"] for row in case_rows(prediction, label, CLASSES, spacing)}


def evaluate_with_monai(prediction: torch.Tensor, label: torch.Tensor, spacing: tuple[float, ...]) -> dict[str, float]:
    """Evaluate a case with the functional metrics of MONAI."""
    masks = [F.one_hot(mask.long(), len(CLASSES) + 1).movedim(-1, 0)[None].float() for mask in (prediction, label)]
    confusion = get_confusion_matrix(*masks, include_background=False)
    metrics = {
        "dice": compute_dice(*masks, include_background=False),
        "iou": compute_iou(*masks, include_background=False),
        "hd": compute_hausdorff_distance(*masks, spacing=spacing),
        "hd95": compute_hausdorff_distance(*masks, percentile=95, spacing=spacing),
        "asd": compute_average_surface_distance(*masks, symmetric=True, spacing=spacing),
        "nsd": compute_surface_dice(*masks, [2.0] * len(CLASSES), spacing=spacing),
    }
    for name, monai_name in (("precision", "precision"), ("recall", "sensitivity"), ("fall_out", "fall out")):
        metrics[name] = compute_confusion_matrix_metric(monai_name, confusion)
    return {
        f"{name}/{CLASSES[index]}": float(value)
        for name, values in metrics.items()
        for index, value in enumerate(values[0])
    }


def seconds_per_pair(
    evaluate: Callable[..., dict[str, float]], pairs: list[tuple[torch.Tensor, torch.Tensor]]
) -> list[float]:
    """Evaluate every pair and return the seconds that each takes."""
    seconds = []
    for prediction, label in pairs:
        start = perf_counter()
        evaluate(prediction, label, (1.0, 1.0, 1.0))
        seconds.append(perf_counter() - start)
    return seconds


def peak_memory(evaluate: Callable[..., dict[str, float]], pair: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Return the peak memory of NumPy during one evaluation, in float32 volumes."""
    tracemalloc.start()
    evaluate(*pair, (1.0, 1.0, 1.0))
    largest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return largest / (4 * pair[0].numel())


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=16)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(2)
    phantom = Phantom("muscle", patients=options.volumes, size=(options.size,) * 3, spacing=(0.5, 0.5, 1.0))
    pairs = [make_pair(phantom, patient) for patient in range(options.volumes)]
    values = evaluate_with_package(*pairs[0], (1.0, 1.0, 1.0))
    expected = evaluate_with_monai(*pairs[0], (1.0, 1.0, 1.0))
    largest_difference = max(abs(values[name] - value) for name, value in expected.items())
    table = Table(title=f"{options.volumes} volumes of {options.size}^3, {len(CLASSES)} classes")
    for column in ("evaluation", "total [s]", "median per volume [s]", "peak memory of NumPy (float32 volumes)"):
        table.add_column(column)
    evaluations = {
        "cm_lightning: 16 metrics, calibration, error by confidence and by depth": evaluate_with_package,
        "cm_lightning: 13 metrics of masks, among them those of MONAI": metrics_with_package,
        "MONAI: 9 metrics": evaluate_with_monai,
    }
    for name, evaluate in evaluations.items():
        seconds = seconds_per_pair(evaluate, pairs)
        table.add_row(name, f"{sum(seconds):.1f}", f"{median(seconds):.2f}", f"{peak_memory(evaluate, pairs[0]):.1f}")
    Console().print(table)
    print(f"Largest difference between the two for the first volume: {largest_difference:.1e}")


if __name__ == "__main__":
    main()
