"""A self-contained page on a data set: summary, problems, pictures, proposed configuration and table."""

from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
from matplotlib.colors import to_hex

from cm_lightning.drawing import class_colour
from cm_lightning.inspection.data_set import DataSet
from cm_lightning.inspection.findings import Findings
from cm_lightning.inspection.pictures import draw_picture, encode
from cm_lightning.inspection.table import case_rows, problem_groups, summary_lines

# Pictures of a page, and problems of a kind that are listed.
MAX_PICTURES = 60
MAX_EXAMPLES = 10

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title><style>
body {font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #222}
table {border-collapse: collapse; font-size: 13px} div.wide {overflow-x: auto}
th, td {padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top}
div.wide td, div.wide th {white-space: nowrap} th {border-bottom: 2px solid #888}
div.pictures {display: flex; flex-wrap: wrap; gap: .8rem} figure {margin: 0; width: 260px}
figure img {background: #000} figcaption {font-size: 12px; line-height: 1.35; overflow-wrap: anywhere}
.refused {color: #b00020} .known {color: #8a5a00} .note {color: #555; max-width: 60rem}
.swatch {display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 .8em}
pre {background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 13px}
</style></head><body>
<h1>{{ title }}</h1>
<table>{% for name, text in summary %}<tr><th>{{ name }}</th><td>{{ text }}</td></tr>
{% endfor %}</table>
<h2>Problems</h2>
{% if not groups %}<p>None were found.</p>{% endif %}
{% for group in groups %}<h3 class="{{ 'refused' if group.is_fatal else 'known' }}">{{ group.title }}</h3>
<ul>{% for text in group.texts %}<li>{{ text }}</li>
{% endfor %}</ul>{% if group.others %}<p>and {{ group.others }} more, see the table.</p>{% endif %}
{% endfor %}<h2>Pictures</h2>
<p class="note">{{ shown }} of {{ total }} cases, those with problems first. The probe should be at the top, and depth
should point down; otherwise change <code>data.axes</code>, in which a minus sign reverses an axis.
Volumes are shown in the frame with the largest label.
<span class="swatch" style="background: #33e6e6"></span>insonified region
{% for name, colour in legend %}<span class="swatch" style="background: {{ colour }}"></span>{{ name }}{% endfor %}</p>
<div class="pictures">{% for picture in pictures %}<figure>
<img alt="case {{ picture.case }}" src="{{ picture.source }}">
<figcaption><b>{{ picture.case }}</b> {{ picture.caption }}
{% for kind in picture.refused %}<br><span class="refused">{{ kind }}</span>{% endfor %}
{% for kind in picture.known %}<br><span class="known">{{ kind }}</span>{% endfor %}</figcaption></figure>
{% endfor %}</div>
{% if configuration %}<h2>Proposed configuration</h2><pre>{{ configuration }}</pre>{% endif %}
<h2>Cases</h2>
<div class="wide"><table><thead><tr>{% for column in columns %}<th>{{ column }}</th>{% endfor %}</tr></thead><tbody>
{% for row in rows %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
</body></html>
"""

# Columns of the CSV file that the table of the page leaves out, since they are long.
LEFT_OUT = ("image", "label", "problems")


@dataclass(frozen=True)
class ProblemGroup:
    """Problems of one kind.

    Attributes:
        title: Kind and number.
        is_fatal: Whether ``fit`` refuses the data because of them.
        texts: The first problems.
        others: Number of the others.
    """

    title: str
    is_fatal: bool
    texts: Sequence[str]
    others: int


@dataclass(frozen=True)
class PagePicture:
    """Picture of a case.

    Attributes:
        case: Id of the case.
        source: Address of the embedded picture.
        caption: Short description.
        refused: Kinds of problems because of which ``fit`` refuses the case.
        known: Kinds of other problems.
    """

    case: str
    source: str
    caption: str
    refused: Sequence[str]
    known: Sequence[str]


def page(data: DataSet, configuration: str = "") -> str:
    """Return the page on a data set as HTML.

    Args:
        data: Inspected data set.
        configuration: Proposed configuration, or "".

    Returns:
        A page without links to other files.
    """
    rows = case_rows(data)
    columns = [column for column in rows[0] if column not in LEFT_OUT]
    pictured = [case for case in data.findings if case.picture is not None]
    pictured.sort(key=lambda case: (not case.problems, case.region is None))
    shown = pictured[:MAX_PICTURES]
    groups = [
        ProblemGroup(
            f"{group[0].kind} ({len(group)})" + (", refused by fit" if group[0].is_fatal else ""),
            group[0].is_fatal,
            [problem.text for problem in group[:MAX_EXAMPLES]],
            max(0, len(group) - MAX_EXAMPLES),
        )
        for group in problem_groups(data.all_problems)
    ]
    return (
        jinja2.Environment(autoescape=True)
        .from_string(PAGE)
        .render(
            title=f"Inspection of {data.root.resolve().name}",
            summary=summary_lines(data),
            groups=groups,
            pictures=[_picture(case, data) for case in shown],
            shown=len(shown),
            total=len(data.findings),
            legend=[(name, to_hex(class_colour(index))) for index, name in enumerate(data.classes.value, start=1)],
            configuration=configuration,
            columns=[column.replace("_", " ") for column in columns],
            rows=[[row[column] for column in columns] for row in rows],
        )
    )


def _picture(case: Findings, data: DataSet) -> PagePicture:
    assert case.picture is not None
    assert case.intensities is not None
    caption = " x ".join(map(str, case.shape))
    if case.region is not None:
        caption += f"; {case.region.kind}, score {case.region.score:.2f}"
    kinds = [
        dict.fromkeys(problem.kind for problem in case.problems if problem.is_fatal == fatal) for fatal in (True, False)
    ]
    return PagePicture(
        case.case.id,
        encode(draw_picture(case.picture, case.intensities, data.classes.value)),
        caption,
        list(kinds[0]),
        list(kinds[1]),
    )
