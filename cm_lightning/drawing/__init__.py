"""Pictures of cases and figures of results, for callbacks, reports and loggers."""

from cm_lightning.drawing.figures import figure_pixels, save_figure
from cm_lightning.drawing.frames import LargestLabelFrame, frame_spacing
from cm_lightning.drawing.overlays import colour_table, overlay
from cm_lightning.drawing.panels import CONFIDENCE, ERRORS, GREY, Panel, Scale, case_panels, class_colour, draw_panels
from cm_lightning.drawing.reliability import reliability_plot

__all__ = [
    "CONFIDENCE",
    "ERRORS",
    "GREY",
    "LargestLabelFrame",
    "Panel",
    "Scale",
    "case_panels",
    "class_colour",
    "colour_table",
    "draw_panels",
    "figure_pixels",
    "frame_spacing",
    "overlay",
    "reliability_plot",
    "save_figure",
]
