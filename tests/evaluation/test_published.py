"""Published values, compared with the text of the study and with the tables of the documentation."""

import re
from pathlib import Path

import pytest

from cm_lightning.evaluation.published import PUBLISHED, SUPPLEMENT

PAPER = Path(__file__).parents[3] / "shared" / "study" / "paper.txt"
CONFIGURATIONS = Path(__file__).parents[2] / "configs" / "README.md"


def numbers(line):
    """Return the means and SDs of a row of a table, in the notation of text, Markdown or LaTeX."""
    plain = re.sub(r"\\!|\\overline|\\boldsymbol|[{}$]", "", line).replace(r"\pm", "±").replace(",", ".")
    return [tuple(map(float, pair)) for pair in re.findall(r"(\d*\.\d+)\s*±\s*(\d*\.\d+)", plain)]


def rows(path, columns):
    """Return the rows of a table with a number of pairs of mean and SD."""
    pairs = [numbers(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in pairs if len(row) == columns]


@pytest.mark.parametrize(("published", "columns"), [(PUBLISHED, 4), (SUPPLEMENT, 5)])
@pytest.mark.parametrize("path", [PAPER, CONFIGURATIONS], ids=["paper", "configurations"])
def test_values_are_those_of_the_paper(path, published, columns):
    if not path.is_file():
        pytest.skip(f"the text of the study was not found at {path}")
    expected = [[tuple(value) for value in values.values()] for values in published.values()]
    assert rows(path, columns) == expected


def test_all_values_are_compared():
    assert sum(len(values) for table in (PUBLISHED, SUPPLEMENT) for values in table.values()) == 78
