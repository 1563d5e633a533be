"""Source and sink of random walks."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from cm_lightning.confidence import column_sink, column_source
from cm_lightning.confidence.boundary import distinct_masks, find_boundary
from tests.confidence.masks import masks_of


def test_source_and_sink_are_the_ends_of_columns():
    domain = np.array([[0, 1, 0, 0], [1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 0, 0]], dtype=bool)
    np.testing.assert_array_equal(np.argwhere(column_source(domain)), [[0, 1], [1, 0], [1, 3]])
    np.testing.assert_array_equal(np.argwhere(column_sink(domain)), [[1, 3], [3, 0], [3, 1]])


def in_components_with(domain, mask):
    components, _ = ndimage.label(domain, np.ones((3, 3)))
    return np.isin(components, np.unique(components[mask])) & domain


@pytest.mark.parametrize("kind", ["band", "fan", "parts", "one side without source", "steps", "empty"])
def test_components_are_those_of_labels(rng, kind):
    shape = (23, 19)
    match kind:
        case "steps":  # intervals that touch at corners, and those that do not
            domain = np.zeros((2, *shape), dtype=bool)
            for row in range(8):
                domain[0, row, 2 * row : 2 * row + 2] = True
                domain[1, row, 2 * row : 2 * row + 1 + row % 2] = True
            source, sink = domain & (rng.random(domain.shape) < 0.1), None
        case "empty":
            domain, source, sink = np.zeros((2, *shape), dtype=bool), None, None
            domain[1, 3:9, 2:4] = True
        case _:
            masks = {name: np.stack([mask, mask[:, ::-1]]) for name, mask in masks_of(kind, shape, rng).items()}
            domain, source, sink = masks["domain"], masks.get("source"), masks.get("sink")
    boundary = find_boundary(3, shape, None, (domain, source, sink), np.array([0, 1, 1]), "all")
    if source is None:
        np.testing.assert_array_equal(boundary.source, column_source(domain))
    if sink is None:
        np.testing.assert_array_equal(boundary.sink, column_sink(domain))
    for number in range(2):
        for ends, reaches in ((boundary.source, boundary.reaches_source), (boundary.sink, boundary.reaches_sink)):
            expected = in_components_with(domain[number], ends[number])
            np.testing.assert_array_equal(reaches[number] & domain[number], expected)
        top, bottom, left, right = boundary.boxes[number]
        assert domain[number, top:bottom, left:right].sum() == domain[number].sum()
        if domain[number].any():
            for line in (np.s_[top], np.s_[bottom - 1], np.s_[:, left], np.s_[:, right - 1]):
                assert domain[number][line].any()
    assert (boundary.rectangle(0) is None) == (kind == "empty")


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_equal_masks_of_successive_frames_are_kept_once(rng, convert):
    domain = (rng.random((3, 5, 4)) < 0.5)[[0, 0, 1, 1, 1, 2]]
    source = (rng.random((2, 5, 4)) < 0.5)[[0, 0, 0, 1, 1, 1]]
    (kept_domain, kept_source, sink), numbers = distinct_masks([convert(domain), convert(source), None], 6)
    assert numbers.tolist() == [0, 0, 1, 2, 2, 3]
    assert sink is None
    np.testing.assert_array_equal(np.asarray(kept_domain)[numbers], domain)
    np.testing.assert_array_equal(np.asarray(kept_source)[numbers], source)
    (kept, *_), numbers = distinct_masks([convert(domain[:2]), None, None], 2)
    assert len(kept) == 1
    assert numbers is None
