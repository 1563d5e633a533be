"""How networks' variability compares with raters', and whether confidence maps predict it: ``variability``."""

from collections.abc import Sequence
from pathlib import Path

from cm_lightning.data.raters import RATER_PATTERN
from cm_lightning.errors import InputError
from cm_lightning.evaluation.report import choose_comparisons
from cm_lightning.runs import find_experiments
from cm_lightning.uncertainty import MCDropout
from cm_lightning.variability.frame import ConsensusName
from cm_lightning.variability.measuring import measure
from cm_lightning.variability.page import variability_page
from cm_lightning.variability.sampling import sample_runs


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
) -> Path:
    """Compare the variability of trained networks with that of raters.

    Args:
        runs: Folders of experiments, or folders that hold such.
        output: Folder to write to.
        raters: Folder of repeated labels; None to compare networks with their errors alone.
        pattern: How a file's name tells its rater and the repeat.
        consensus: How labels are made one.
        settings: How networks are sampled.
        frames: Frames of every volume.
        sampled: Where samples are kept; in ``output`` by default.
        data_root: The data set, where it has moved since training.
        accelerator: Lightning's name of the device.
        baseline: Model that all others are compared with.
        compare: In its place, the planned comparisons, each "model=baseline".

    Returns:
        The page.

    Raises:
        InputError: None of the runs can be sampled, or the raters' labels not be read.
    """
    experiments = find_experiments(runs)
    names = [(experiment.model, experiment.seed) for experiment in experiments]
    twice = sorted({f"{model} (seed {seed})" for model, seed in names if names.count((model, seed)) > 1})
    if twice:
        raise InputError(f"Several of the runs are the same model with the same seed: {', '.join(twice)}.")
    comparisons = choose_comparisons(list(dict.fromkeys(model for model, _ in names)), baseline, compare)
    images, problems = sample_runs(
        experiments, sampled or output / "samples", settings, frames, raters, pattern, data_root, accelerator
    )
    results = measure(images, raters, pattern, consensus)
    output.mkdir(parents=True, exist_ok=True)
    for name in ("measures", "raters", "profiles", "bins", "convergence"):
        getattr(results, name).to_csv(output / f"{name}.csv", index=False)
    measured = [pair for pair in comparisons if {pair.model, pair.baseline} <= set(results.models)]
    return variability_page(results, measured, settings.samples, problems).write(output)
