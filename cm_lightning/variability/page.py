"""The page on predictive uncertainty and rater variability."""

from collections.abc import Sequence

from cm_lightning.evaluation.comparison import Comparison, Family
from cm_lightning.evaluation.page import Page
from cm_lightning.evaluation.tables import problem_table
from cm_lightning.runs.versions import versions
from cm_lightning.variability.figures import image_figures, number_figures
from cm_lightning.variability.results import Variability
from cm_lightning.variability.tables import (
    agreement_table,
    comparison_tables,
    correlation_table,
    explained_table,
    predictor_table,
    rater_table,
    uncertainty_table,
)


def variability_page(
    results: Variability,
    comparisons: Sequence[Comparison],
    samples: int,
    problems: Sequence[tuple[str, str]] = (),
    family: Family = "table",
) -> Page:
    """Create the page with all tables and figures.

    Args:
        results: Measurements.
        comparisons: Planned comparisons.
        samples: Number of forward passes with dropout.
        problems: Folder of each experiment that was left out, and the reason.
        family: Comparisons over which Holm's correction is made.

    Returns:
        The page.
    """
    repeated = len(results.raters) > 0
    patients = results.measures["patient"].nunique()
    label_counts = sorted({len(image.frame.labels) for image in results.shown.values()})
    raters = len({rater for image in results.shown.values() for rater in image.frame.raters})
    images = len(results.measures.drop_duplicates(["case", "frame"]))
    counts = " or ".join(map(str, label_counts))
    labels = f"{counts} labels per image by {raters} rater(s)" if repeated else "one label per image"
    tables = [
        problem_table(list(problems)),
        *([correlation_table(results), explained_table(results), rater_table(results)] if repeated else []),
        *([agreement_table(results)] if repeated else []),
        *([predictor_table(results, "disagreement")] if repeated else []),
        predictor_table(results, "error"),
        uncertainty_table(results),
        *comparison_tables(results, comparisons, family),
    ]
    return Page(
        title="Predictive uncertainty" + (" and rater variability" if repeated else ""),
        summary=f"{images} images of {patients} patients, {labels}; {len(results.models)} models, "
        f"{results.measures['seed'].nunique()} seed(s), {samples} samples of MC dropout. Values are averaged over the "
        f"images and seeds of a patient; statistics are over patients. Distances in {results.unit}. Unless stated "
        "otherwise, pixels are those near the boundaries of the consensus of the labels (within a tenth of the depth "
        "of the frame).",
        tables=[table for table in tables if table is not None],
        first=image_figures(results),
        figures=number_figures(results),
        provenance="Created from the stored samples with "
        f"{', '.join(f'{name} {number}' for name, number in versions().items())}.",
    )
