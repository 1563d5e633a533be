"""Raters who marked rows of boundaries: their spread, its correlation with confidence, and the command."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from cm_lightning.data.rater_rows import read_rater_rows
from cm_lightning.main import main
from cm_lightning.statistics.means import mean_interval
from cm_lightning.variability.lines import line_properties
from cm_lightning.variability.row_raters import (
    columns_at,
    partial_rank,
    rater_spread,
    sequence_correlations,
    summarise,
)

SUBJECTS, FRAMES = 4, 10


@pytest.fixture
def data(tmp_path, rng):
    """Write noise with a bright line at two depths, marked by raters who differ more at the deeper one."""
    (tmp_path / "images").mkdir()
    lines = []
    for subject in range(SUBJECTS):
        for number in range(FRAMES):
            name = f"s{subject}_{number}"
            picture = rng.integers(10, 90, (60, 48))
            rows = {"upper": 12 + rng.integers(0, 4), "lower": 40 + rng.integers(0, 8)}
            for row in rows.values():
                picture[row] = 220
            Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "images" / f"{name}.png")
            for rater, bias in (("a", 0), ("b", 2), ("c", -2)):
                marks = [row + bias + rng.normal(0, 0.2 + row / 20) for row in rows.values()]
                lines.append((name, f"s{subject}", rater, *marks))
    table = pd.DataFrame(lines, columns=["frame", "subject", "rater", "upper_row", "lower_row"])
    table.loc[0, "upper_row"] = 55  # a slip
    table.to_csv(tmp_path / "raters.csv", index=False)
    return tmp_path


def test_spread_and_bias(data):
    rows = read_rater_rows(data / "raters.csv")
    spread = rater_spread(rows).set_index(["case", "boundary"])
    marks = rows.set_index(["case", "boundary", "rater"])["row"].unstack()
    np.testing.assert_allclose(spread["sd"], marks.std(axis=1).reindex(spread.index))
    assert spread["farthest"].idxmax() == ("s0_0", "upper")
    normal = spread.drop("s0_0", level="case").groupby("boundary").mean(numeric_only=True)
    assert (normal["sd_unbiased"] < normal["sd"] - 0.2).all()


def test_partial_rank_is_the_textbook_formula(rng):
    first, second, third = rng.normal(size=(3, 25))
    first, second = first + third, second + third
    r12, r13, r23 = (stats.spearmanr(*pair)[0] for pair in ((first, second), (first, third), (second, third)))
    expected = (r12 - r13 * r23) / np.sqrt((1 - r13**2) * (1 - r23**2))
    assert partial_rank(first, second, [third]) == pytest.approx(expected)
    assert partial_rank(first, second, []) == pytest.approx(r12)
    assert np.isnan(partial_rank(third, second, [third]))


def test_mean_over_sequences_then_subjects():
    correlations = pd.DataFrame(
        {"subject": ["a", "a", "b", "c"], "sequence": ["a1", "a2", "b1", "c1"], "rho": [-0.2, -0.4, 0.1, -0.5]}
    )
    summary = summarise(correlations)
    assert summary.mean == pytest.approx(np.mean([-0.3, 0.1, -0.5]))
    assert (summary.low, summary.high) == pytest.approx(mean_interval([-0.3, 0.1, -0.5]))
    assert (summary.subjects, summary.sequences) == (3, 4)


def test_one_correlation_per_sequence(rng):
    points = pd.DataFrame({"subject": "a", "sequence": np.repeat(["x", "y"], 10), "sd": np.tile(np.arange(10.0), 2)})
    points["confidence"] = [*range(10), *range(10, 0, -1)]
    assert sequence_correlations(points, "confidence")["rho"].tolist() == pytest.approx([1, -1])
    assert not len(sequence_correlations(points[:5], "confidence"))


def test_properties_of_a_line():
    image = np.full((100, 20), 0.2)
    image[40:42] = 1.0
    confidence = np.linspace(1, 0, 100)[:, None] * np.ones(20)
    confidence[:, :10] -= 0.1
    values = line_properties(image, confidence, 40.3, slice(0, 10))
    assert values["contrast"] == pytest.approx(0.8)
    assert values["depth"] == 0.4
    assert values["confidence"] == pytest.approx(confidence[40, 0])
    assert values["residual"] == pytest.approx(-0.05)
    assert values["confidence_drop"] == pytest.approx(7 / 99, abs=1e-6)
    assert values["energy_below"] == pytest.approx((1 + 58 * 0.04) / (2 + 98 * 0.04))


@pytest.mark.parametrize(("position", "expected"), [(None, (0, 100)), (0, (0, 5)), (0.5, (48, 53)), (1, (95, 100))])
def test_columns_of_a_position(position, expected):
    window = columns_at(100, position)
    assert (window.start, window.stop) == expected


def test_command(data):
    arguments = ["variability", str(data / "images"), "--raters", str(data / "raters.csv")]
    main([*arguments, "--output", str(data / "page"), "--slip", "25", "--position", "0"])
    page = (data / "page" / "report.md").read_text()
    assert "39 images of 4 subjects in 4 sequences, 3 raters; 1 images were left out as slips" in page
    points = pd.read_csv(data / "page" / "points.csv")
    assert len(points) == 78
    # Raters differ more at the deeper line, where confidence is lower, as it is in the maps of other subjects.
    for predictor in ("confidence", "other"):
        assert summarise(sequence_correlations(points, predictor)).high < 0
    (data / "images" / "s1_1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"There is no image of the case s1_1 \(1 of 40 are missing\)"):
        main([*arguments, "--output", str(data / "page")])
