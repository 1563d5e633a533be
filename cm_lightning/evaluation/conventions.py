"""Table of the conventions of all metrics."""

from cm_lightning.evaluation.loading import nsd_tolerances
from cm_lightning.evaluation.report_table import Cell, ReportTable
from cm_lightning.evaluation.results import Results


def convention_table(results: Results) -> ReportTable:
    """Create a table of the conventions of all metrics, with the settings of this report.

    Args:
        results: Values of the report.

    Returns:
        The table.
    """
    tolerances = ", ".join(
        f"{name} {value:g} {results.unit}" for name, value in nsd_tolerances(results.runs.rows).items()
    )
    conventions = {
        "tolerance of the NSD": f"{tolerances}; a distance that equals it but for rounding errors is within it",
        "edge": "voxels of a mask with a face at its outside (erosion by faces); the border of the image is outside",
        "HD": "largest distance between edge voxels, of both directions",
        "HD95": "larger of the 95th percentiles of the two directions, interpolated linearly",
        "ASD": "mean distance over the pooled edge voxels of both masks",
        "islands": "excess components of the prediction; voxels that share a face, an edge or a corner are connected",
        "volume error": "absolute difference of the volumes, relative to the label",
        "CSA error": "mean absolute difference of the areas of all frames with the class in prediction or label",
        "class in neither mask": "not scored, except for ECE, ACE and Brier",
        "class in one mask": "DSC, IoU, precision, recall and NSD 0; miss rate and fall-out 1; distances the diagonal "
        "of the image; islands, volume error and CSA error not scored",
        "order of means": "over the scans of a participant for each class and seed, over classes, over seeds, over "
        "participants",
        "ranks": "values that differ by less than about 1e-9 of their scale are ties",
    }
    return ReportTable(
        "conventions",
        "Conventions of the metrics",
        "All distances are measured on the grid of the files, with the voxel size of every axis.",
        ["metric", "convention"],
        [[Cell(name), Cell(text)] for name, text in conventions.items()],
    )
