"""Time of a report of 22 settings, 16 participants and 3 classes, from random results.

    python benchmarks/report.py

The files have the format of ``test``, with random values; the report is that of the subcommand ``report``.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import pandas as pd

from cm_lightning.evaluation.report import write_report
from cm_lightning.metrics import METRICS

SETTINGS = [f"muscle_{network}_{number}" for network in ("unet", "attunet") for number in range(11)]
PATIENTS = [f"patient{number:02d}" for number in range(16)]
FOLDS = [PATIENTS[fold::3] for fold in range(3)]
CLASSES = ["soleus", "gastrocnemius_medialis", "gastrocnemius_lateralis"]


def write_fold(folder: Path, fold: int, generator: np.random.Generator) -> None:
    """Write the files of a tested fold."""
    folder.mkdir(parents=True)
    constants = {"grouping": "patient", "unit": "mm", "postprocessing": "none", "fold": fold}
    flags = {"pred_empty": False, "truth_empty": False, "diagonal": 100.0}
    rows = [
        {
            "case": name,
            "patient": name,
            "class": label,
            "metric": metric,
            "value": generator.random(),
            **constants,
            **flags,
        }
        for name in FOLDS[fold]
        for label in CLASSES
        for metric in METRICS
    ]
    pd.DataFrame(rows).to_csv(folder / "test_metrics.csv", index=False)
    counts = ("true_positive", "false_positive", "false_negative")
    levels = [
        {"case": name, "patient": name, "class": label, "by": by, "level": level, "fold": fold}
        | {count: int(generator.integers(1000)) for count in counts}
        for name in FOLDS[fold]
        for label in CLASSES
        for by in ("confidence", "depth")
        for level in range(10)
    ]
    pd.DataFrame(levels).to_csv(folder / "test_levels.csv", index=False)
    sums = {"count": 1000, "probability": 500.0, "positive": 500, "squared_error": 250.0}
    calibration = [
        {"case": name, "patient": name, "class": label, "calibration": "none", "bin": number, "fold": fold, **sums}
        for name in FOLDS[fold]
        for label in CLASSES
        for number in range(20)
    ]
    pd.DataFrame(calibration).to_csv(folder / "test_calibration.csv", index=False)
    plan = {"split": "kfold", "split_seed": 0, "fold": fold, "test_cases": FOLDS}
    (folder / "test_plan.json").write_text(json.dumps(plan))
    curve = {"epoch": range(120), "val/dice/mean": generator.random(120)}
    pd.DataFrame(curve).to_csv(folder / "metrics.csv", index=False)


def main() -> None:
    """Write the files, create the report and print the time that this takes."""
    generator = np.random.default_rng(0)
    with TemporaryDirectory() as name:
        root = Path(name)
        for setting in SETTINGS:
            for fold in range(len(FOLDS)):
                write_fold(root / "runs" / setting / f"fold{fold}", fold, generator)
        start = perf_counter()
        write_report([root / "runs"], root / "report")
        print(f"{len(SETTINGS)} settings, {len(PATIENTS)} participants: {perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
