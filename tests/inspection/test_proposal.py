"""Proposed settings."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from cm_lightning.data.cases import Case
from cm_lightning.data.sizes import choose_size
from cm_lightning.inspection.configuration import _Writer
from cm_lightning.inspection.findings import Findings, Region
from cm_lightning.inspection.orienting import better_axes
from cm_lightning.inspection.problems import describe_data_set
from cm_lightning.inspection.proposal import (
    Choice,
    propose_domain,
    propose_network,
    propose_patient_pattern,
)
from cm_lightning.planning import Resources
from cm_lightning.planning.resources import GIB


def region(kind="rectangle", score=0.9, coverage=0.5, band=0.5, overlap=1.0, side="top", sideways=False):
    return Region(kind, score, coverage, band, overlap, side, sideways, np.ones((2, 2), bool))


def findings(*regions, **values):
    settings = {"axes": "lateral depth elevation", "shape": (57, 50, 40), "values": {0: 5, 1: 5}} | values
    return [Findings(Case(str(n), "", None), region=item, **settings) for n, item in enumerate(regions)]


@pytest.mark.parametrize(
    ("shape", "spacing", "factor", "expected"),
    [
        ((512, 512), (1, 1), 16, [192, 192]),
        ((400, 800), (1, 1), 16, [96, 192]),
        ((400, 400), (0.1, 0.2), 16, [96, 192]),  # 40 x 80 mm
        ((100, 50), (1, 1), 16, [96, 48]),  # not enlarged
        ((564, 632, 1443), (0.1, 0.1, 0.2), 8, [24, 24, 128]),
        ((200, 200, 10), (0.2, 0.2, 3), 8, [128, 128, 16]),
        ((59, 44, 41), (0.4, 0.4, 0.4), 8, [56, 48, 40]),
    ],
)
def test_size_of_the_grid(shape, spacing, factor, expected):
    assert choose_size(shape, spacing, factor) == expected


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["patient1_a", "patient1_b", "patient2_a", "patient3_a"], True),
        (["sub-01_run-1", "sub-01_run-2", "sub-02_run-1", "sub-03_run-1"], True),
        (["001_HC", "001_2HC", "002_HC", "003_HC"], True),
        (["img_001", "img_002", "img_003", "img_004"], False),
        (["0001", "0002", "0003"], False),
        (["P1_1", "P1_2", "P2_1"], False),  # too few patients
    ],
)
def test_patients_in_file_names(names, pattern):
    assert (propose_patient_pattern(names).value is not None) == pattern


def test_insonified_region():
    assert propose_domain(findings(region(coverage=0.99), region(coverage=1.0))).value == "whole"
    assert propose_domain(findings(region(), region())).value == "linear"
    assert propose_domain(findings(region(overlap=0.8), region("sector"))).value == "auto"
    assert propose_domain(findings(region(score=0.1), region(score=0.2))).value == "linear"
    assert propose_domain(findings(region(score=0.1, band=1.0), region(score=0.2, band=1.0))).value == "whole"


def test_axes_are_changed_at_most_twice():
    sideways, below = region(sideways=True), region(side="bottom")
    first = better_axes(findings(sideways, sideways, region()), None)
    assert first.value == "depth lateral elevation"
    second = better_axes(findings(below, below, region(), axes=first.value), first)
    assert second.value == "-depth lateral elevation"
    assert better_axes(findings(below, below, axes=second.value), second) is None
    assert better_axes(findings(sideways, axes=first.value), first) is None
    assert better_axes(findings(sideways, states_axes=True), None) is None
    assert better_axes(findings(region(), sideways), None) is None


def test_network_depends_on_classes():
    cases = findings(*[region()] * 4)
    resources = Resources(8 * GIB)
    network = propose_network(cases, "lateral depth elevation", {"left_lobe": 1, "other": 2}, 20, resources)
    assert network.size.value == [56, 64, 40]
    assert network.is_patch
    assert network.flip.value == 0.0
    assert network.batch_dice.value
    assert network.batch_size.value == 2
    assert network.max_epochs.value == 150
    assert propose_network(cases, "lateral depth elevation", {"a": 1}, 20, resources).flip.value == 0.5


def test_problems_of_the_data_set():
    cases = findings(region(), region(), region(), spacing=(0.1, 0.1, 0.5), values={0: 5, 1: 5})
    patients = ["a", "b", "c"]
    assert describe_data_set(cases, "lateral depth elevation", {"one": 1}, patients, 3) == []
    cases[1] = replace(cases[1], spacing=(0.1, 0.2, 0.5), values={0: 10})
    kinds = [problem.kind for problem in describe_data_set(cases, cases[0].axes, {"one": 1, "ignore": 5}, patients, 3)]
    assert kinds == ["different voxel sizes", "rare class"]
    cases[2] = replace(cases[2], spacing=None)
    (first, *_) = describe_data_set(cases, cases[0].axes, {"one": 1}, patients, 2)
    assert first.text.startswith("1 of 3 files contain no pixel size, for example None;")


def test_text_is_quoted_for_yaml():
    out = _Writer()
    out.setting(0, "classes", None, "a reason")
    for number, name in enumerate(["no", "yes", "on", "1", "null", "class_1", "1e3"]):
        out.setting(1, name, number, "x" * 10 * number)
    out.setting(0, "pattern", r"^([^_-]*[0-9]): # '\d\"", "y" * 200)
    parsed = yaml.safe_load(out.text)
    assert list(parsed["classes"]) == ["no", "yes", "on", "1", "null", "class_1", "1e3"]
    assert parsed["pattern"] == r"^([^_-]*[0-9]): # '\d\""
    assert all(len(line) <= 202 for line in out.text.splitlines())
    assert Choice(1, "a").reason == "a"
