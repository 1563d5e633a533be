"""The page on variability: where a network hesitates, where raters do, and whether the two agree."""

from collections.abc import Sequence

from cm_lightning.evaluation.comparison import Comparison
from cm_lightning.evaluation.page import Page
from cm_lightning.evaluation.tables import problem_table
from cm_lightning.runs.versions import versions
from cm_lightning.variability.figures import image_figures, number_figures
from cm_lightning.variability.results import Variability
from cm_lightning.variability.tables import (
    agreement_table,
    comparison_tables,
    explained_table,
    predictor_table,
    question_table,
    rater_table,
    uncertainty_table,
)


def variability_page(
    found: Variability,
    comparisons: Sequence[Comparison],
    samples: int,
    problems: Sequence[tuple[str, str]] = (),
) -> Page:
    """Put everything on a page.

    Args:
        found: What was measured.
        comparisons: Those that were planned.
        samples: Number of passes with dropout.
        problems: Experiments that were left out, each with the reason.

    Returns:
        The page.
    """
    repeated = len(found.raters) > 0
    patients = found.measures["patient"].nunique()
    numbers = sorted({len(one.frame.labels) for one in found.shown.values()})
    drawn_by = len({rater for one in found.shown.values() for rater in one.frame.raters})
    images = len(found.measures.drop_duplicates(["case", "frame"]))
    labels = f"{' or '.join(map(str, numbers))} labels by {drawn_by} rater(s) each" if repeated else "one label each"
    tables = [
        problem_table(list(problems)),
        *([question_table(found), explained_table(found), rater_table(found)] if repeated else []),
        *([agreement_table(found)] if repeated else []),
        *([predictor_table(found, "disagreement")] if repeated else []),
        predictor_table(found, "error"),
        uncertainty_table(found),
        *comparison_tables(found, comparisons),
    ]
    return Page(
        title="Where networks hesitate" + (", and where raters do" if repeated else ""),
        about=f"{images} images of {patients} patients, {labels}; {len(found.models)} models, "
        f"{found.measures['seed'].nunique()} seed(s), {samples} samples with dropout. A patient's value is the mean "
        f"over images and seeds; patients are what is counted. Distances in {found.unit}. What is said of "
        "pixels is said of those near a boundary of the labels' consensus (a tenth of the frame's depth).",
        tables=[table for table in tables if table is not None],
        first=image_figures(found),
        figures=number_figures(found),
        again=f"Made from the samples kept beside this page with "
        f"{', '.join(f'{name} {number}' for name, number in versions().items())}.",
    )
