"""The comparison of predictive uncertainty and rater variability, as run by the subcommand ``variability``."""

from collections.abc import Sequence
from pathlib import Path

from cm_lightning.data.raters import RATER_PATTERN
from cm_lightning.errors import InputError
from cm_lightning.evaluation.comparison import Family
from cm_lightning.evaluation.report import choose_comparisons
from cm_lightning.runs import find_experiments
from cm_lightning.uncertainty import MCDropout
from cm_lightning.variability.frame import ConsensusName
from cm_lightning.variability.measuring import measure
from cm_lightning.variability.page import variability_page
from cm_lightning.variability.sampling import sample_runs
from cm_lightning.writing import write_table


def compare_variability(
    runs: Sequence[Path],
    output: Path,
    raters: Path | None = None,
    pattern: str = RATER_PATTERN,
    consensus: ConsensusName = "majority",
    settings: MCDropout = MCDropout(),  # noqa: B008 (frozen)
    frames: int = 3,
    sampled: Path | None = None,
    data_root: Path | None = None,
    accelerator: str = "auto",
    baseline: str | None = None,
    compare: Sequence[str] | None = None,
    family: Family = "table",
) -> Path:
    """Sample trained networks, compare the samples with repeated labels and write the page.

    Args:
        runs: Folders of experiments, or folders that contain folders of experiments.
        output: Folder of the page.
        raters: Folder of repeated labels; None to compare uncertainty with errors only.
        pattern: Regular expression for the names of label files; see :func:`cm_lightning.data.raters.find_rater_files`.
        consensus: Method of the consensus of labels.
        settings: Settings of MC dropout.
        frames: Number of frames per volume.
        sampled: Folder of the samples; a folder in ``output`` by default.
        data_root: Folder of the data set, if it differs from the one used in training.
        accelerator: Lightning's name of the device.
        baseline: Model with which all others are compared.
        compare: Planned comparisons, each "model=baseline", instead of a single baseline.
        family: Comparisons over which Holm's correction is made.

    Returns:
        Path of the page.

    Raises:
        InputError: No experiment can be sampled, or the labels cannot be read.
    """
    experiments = find_experiments(runs)
    names = [(experiment.model, experiment.seed) for experiment in experiments]
    duplicates = sorted({f"{model} (seed {seed})" for model, seed in names if names.count((model, seed)) > 1})
    if duplicates:
        raise InputError(
            f"Several experiments have the same model and seed: {', '.join(duplicates)}; expected each pair once."
        )
    comparisons = choose_comparisons(list(dict.fromkeys(model for model, _ in names)), baseline, compare)
    images, problems = sample_runs(
        experiments, sampled or output / "samples", settings, frames, raters, pattern, data_root, accelerator
    )
    results = measure(images, raters, pattern, consensus)
    for name in ("measures", "raters", "profiles", "bins", "convergence"):
        write_table(output / f"{name}.csv", getattr(results, name))
    measured = [pair for pair in comparisons if {pair.model, pair.baseline} <= set(results.models)]
    return variability_page(results, measured, settings.samples, problems, family).write(output)
