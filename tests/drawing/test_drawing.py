"""Pictures of cases: selection of the frame, panels, and figures as pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from cm_lightning.drawing import (
    CONFIDENCE,
    GREY,
    LargestLabelFrame,
    Panel,
    Scale,
    case_panels,
    draw_panels,
    figure_pixels,
    frame_spacing,
    save_figure,
)


def test_frame_with_the_most_labelled_pixels():
    label = torch.zeros(1, 4, 5, 3, dtype=torch.uint8)
    label[0, :2, :2, 1] = 2
    label[0, 0, 0, 2] = 1
    frame = LargestLabelFrame(label)
    image = torch.arange(60.0).reshape(1, 4, 5, 3)
    np.testing.assert_array_equal(frame(image), image[0, :, :, 1])
    flat = image[..., 0]
    np.testing.assert_array_equal(LargestLabelFrame(label[..., 1])(flat), flat[0])
    assert frame_spacing(torch.tensor([0.5, 2.0, 7.0])) == (0.5, 2.0)


def test_panels_of_a_case_with_and_without_a_map(rng, tmp_path):
    image = rng.random((20, 30))
    label = np.zeros((20, 30), dtype=int)
    label[5:10, 5:10] = 2
    panels = case_panels("a", image, image, label, np.zeros_like(label), (0.5, 0.25), "mm", "prediction, Dice 0.00")
    assert [panel.title for panel in panels] == ["a: image", "confidence map", "label", "prediction, Dice 0.00"]
    assert [panel.scale for panel in panels] == [GREY, CONFIDENCE, GREY, GREY]
    assert len(case_panels("a", image, None, label, label, (0.5, 0.25), "mm")) == 3
    figure = draw_panels([panels, panels], ["nerve", "vessel"], "validation")
    panel_axes = [axes for axes in figure.axes if axes.images]
    assert panel_axes[0].get_xlim() == (0, 7.5)  # mm
    assert panel_axes[0].get_ylim() == (10, 0)  # depth increases downwards
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["nerve", "vessel"]
    save_figure(figure, tmp_path / "new" / "picture.png")
    assert (tmp_path / "new" / "picture.png").stat().st_size > 1000


@pytest.mark.parametrize("shape", [(64, 64), (64, 128), (20, 128), (160, 64)])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("columns", [2, 5])
@pytest.mark.parametrize("title", ["", "validation"])
def test_parts_of_a_figure_do_not_overlap_or_leave_it(shape, rows, columns, title):
    panel = Panel("patient_with_a_long_name_0001_sweep_2: mean prediction", np.zeros(shape), (1.0, 1.0), "mm")
    row = [panel] * (columns - 1) + [replace(panel, scale=Scale("mutual information [nats]"))]
    figure = draw_panels([row] * rows, ["nerve"], title)
    figure_pixels(figure)  # positions of texts are known after drawing
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    boxes += [text.get_window_extent() for text in [*figure.texts, *figure.legends]]
    assert len(boxes) == rows * columns + 2 + bool(title)
    for index, box in enumerate(boxes):
        assert min(box.x0, box.y0, figure.bbox.x1 - box.x1, figure.bbox.y1 - box.y1) >= 0
        assert not any(box.overlaps(other) for other in boxes[:index])


def test_figure_pixels():
    figure = Figure(figsize=(2, 1), dpi=50, facecolor=(1, 0, 0))
    pixels = figure_pixels(figure)
    assert pixels.shape == (50, 100, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == [255, 0, 0]).all()
