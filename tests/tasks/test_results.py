"""Tables of test results, with every case once."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from cm_lightning.data.ignored import IGNORED_INDEX
from cm_lightning.metrics.calibration import BINS, calibration_errors
from cm_lightning.metrics.levels import LEVELS
from cm_lightning.tasks.results import CALIBRATION_KEYS, LEVEL_KEYS, ROW_KEYS, NativeCase, ResultCollector

NAMES = ["muscle", "nerve"]
SHAPE = (12, 16)


def native_case(name):
    generator = torch.Generator().manual_seed(ord(name))
    label = torch.randint(0, 3, SHAPE, generator=generator)
    logits = torch.randn(3, *SHAPE, generator=generator)
    domain = torch.ones(SHAPE, dtype=torch.bool)
    return NativeCase(name, name.upper(), "leg", "mm", [1.0, 2.0], label, domain), logits.softmax(dim=0)


def collect(collector, names, confidence=True):
    for name in names:
        case, probabilities = native_case(name)
        prediction = probabilities.argmax(dim=0)
        collector.add_probabilities(case, list(probabilities[1:]), "none")
        collector.add_probabilities(case, list(0.5 * probabilities[1:]), "temperature")
        collector.add_levels(case, prediction, torch.rand(SHAPE) if confidence else None)
        collector.end_case(case, {"none": prediction, "largest component": torch.zeros_like(prediction)})
    return collector.gather()


def test_tables_contain_all_results():
    rows, levels, calibration = collect(ResultCollector(NAMES), "ab")
    assert list(rows["case"].unique()) == ["a", "b"]
    assert list(rows["patient"].unique()) == ["A", "B"]
    assert set(rows["grouping"]) == {"leg"}
    assert set(rows["unit"]) == {"mm"}
    assert list(rows["postprocessing"].unique()) == ["none", "largest component"]
    assert len(calibration) == 2 * 2 * 2 * BINS  # cases, calibrations, classes
    assert len(levels) == 2 * 2 * 2 * LEVELS  # cases, kinds of level, classes
    assert list(levels["by"].unique()) == ["depth", "confidence"]
    for table, keys in ((rows, ROW_KEYS), (levels, LEVEL_KEYS), (calibration, CALIBRATION_KEYS)):
        assert not table.duplicated(keys).any()

    # The metrics of probabilities equal the calibration errors.
    values = rows.set_index(["postprocessing", "case", "class", "metric"])["value"]
    errors = calibration_errors(calibration[calibration["calibration"] == "none"], ["case", "class"])
    for case in "ab":
        for name in NAMES:
            for metric in errors:
                assert values["none", case, name, metric] == pytest.approx(errors.loc[(case, name), metric])
    assert set(values["largest component"].index.unique("metric")).isdisjoint(errors)


def test_errors_are_counted_only_by_depth_without_a_map():
    assert set(collect(ResultCollector(NAMES), "a", confidence=False).levels["by"]) == {"depth"}


def test_repeated_cases_are_dropped():
    torch.manual_seed(0)
    once = collect(ResultCollector(NAMES), "ab", confidence=False)
    repeated = collect(ResultCollector(NAMES), "aba", confidence=False)
    for table, expected in zip(repeated, once, strict=True):
        pd.testing.assert_frame_equal(table, expected)


def test_tests_are_independent():
    collector = ResultCollector(NAMES)
    collect(collector, "a")
    assert set(collect(collector, "b").rows["case"]) == {"b"}


def test_two_processes_return_the_same_tables_as_one(two_processes):
    expected_tables = collect(ResultCollector(NAMES), "abc", confidence=False)
    both = two_processes(lambda rank: collect(ResultCollector(NAMES), ("ab", "ca")[rank], confidence=False))
    for tables in both:
        for table, expected in zip(tables, expected_tables, strict=True):
            pd.testing.assert_frame_equal(table, expected)


def test_parts_of_a_case_add_up():
    generator = torch.Generator().manual_seed(0)
    shape = (6, 7, 5)
    label, prediction = (torch.randint(0, 3, shape, generator=generator) for _ in range(2))
    probabilities, confidence = torch.rand(2, *shape, generator=generator), torch.rand(shape, generator=generator)
    domain = torch.rand(shape, generator=generator) > 0.2
    case = NativeCase("a", "A", "leg", "mm", [1.0, 2.0, 1.0], label, domain)
    tables = []
    for parts in ([range(5)], [range(2), range(2, 3), range(3, 5)]):
        collector = ResultCollector(NAMES)
        for frames in parts:
            span = slice(frames.start, frames.stop)
            collector.add_probabilities(case.part(frames), probabilities[..., span], "none")
            collector.add_levels(case.part(frames), prediction[..., span], confidence[..., span])
        collector.end_case(case, {"none": prediction})
        tables.append(collector.gather())
    for whole, summed in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(whole, summed)


def test_case_has_the_geometry_of_its_file():
    shape = (8, 4)
    domain = torch.zeros(1, 1, *shape, dtype=torch.bool)
    domain[..., :2] = True
    batch = {
        "case": ["a"],
        "patient": ["p"],
        "unit": ["mm"],
        "native_shape": torch.tensor([shape]),
        "native_spacing": torch.tensor([[0.5, 0.25]]),
        "native_label": torch.ones(1, 1, *shape, dtype=torch.uint8),
        "native_domain": domain,
    }
    case = NativeCase.from_batch(batch, "leg")
    assert (case.case, case.patient, case.grouping, case.unit) == ("a", "p", "leg", "mm")
    assert case.spacing == [0.5, 0.25]
    assert case.label.shape == case.domain.shape == shape
    assert case.domain.dtype == torch.bool
    assert case.domain[:, :2].all()
    assert not case.domain[:, 2:].any()


def test_voxels_to_ignore_are_not_counted():
    """Anything may be predicted there, and all tables remain the same."""
    case, probabilities = native_case("a")
    label = case.label.to(torch.uint8)
    label[:, 5:9] = IGNORED_INDEX
    other = probabilities.clone()
    other[:, :, 5:9] = other[:, :, 5:9].roll(1, dims=0)
    confidence = torch.rand(SHAPE)
    tables = []
    for predicted in (probabilities, other):
        collector = ResultCollector(NAMES)
        collector.add_probabilities(replace(case, label=label), predicted[1:], "none")
        collector.add_levels(replace(case, label=label), predicted.argmax(dim=0), confidence)
        collector.end_case(replace(case, label=label), {"none": predicted.argmax(dim=0)})
        tables.append(collector.gather())
    for first, second in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(first, second)
    _, levels, calibration = tables[0]
    known = label.numel() - 4 * SHAPE[0]
    assert set(calibration.groupby("class")["count"].sum()) == {known}
    assert calibration.groupby("class")["positive"].sum()["nerve"] == (label == 2).sum()
    truth = levels[levels["by"] == "depth"].groupby("class")[["true_positive", "false_negative"]].sum().sum(axis=1)
    assert truth["nerve"] == (label == 2).sum()
