"""A table that is written as HTML, Markdown, LaTeX and CSV."""

import csv
import io
import math
from dataclasses import dataclass
from html import escape

LATEX_SPECIAL = str.maketrans({c: rf"\{c}" for c in "&%$#_{}"} | {"±": r"$\pm$", "²": r"$^2$"})


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: Text of the cell.
        best: Whether the cell is printed in bold, as the best value of its column.
    """

    text: str
    best: bool = False


@dataclass(frozen=True)
class ReportTable:
    """A table of the report.

    Attributes:
        name: File name without suffix.
        title: Heading.
        note: Explanation that is printed with the table.
        columns: Headings of the columns.
        rows: Cells of each row.
    """

    name: str
    title: str
    note: str
    columns: list[str]
    rows: list[list[Cell]]

    def to_html(self) -> str:
        """Return the table as HTML."""
        head = "".join(f"<th>{escape(column)}</th>" for column in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{'<b>' * c.best}{escape(c.text)}{'</b>' * c.best}</td>" for c in row) + "</tr>\n"
            for row in self.rows
        )
        return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"

    def to_markdown(self) -> str:
        """Return the table as Markdown, with title and note."""
        lines = [self.columns, ["---"] * len(self.columns)]
        lines += [[f"**{cell.text}**" if cell.best else cell.text for cell in row] for row in self.rows]
        grid = "\n".join("| " + " | ".join(text.replace("|", r"\|") for text in line) + " |" for line in lines)
        return f"## {self.title}\n\n{self.note}\n\n{grid}\n"

    def to_latex(self) -> str:
        """Return the table as a LaTeX ``tabular``."""

        def text(cell: Cell) -> str:
            plain = cell.text.translate(LATEX_SPECIAL)
            return rf"\textbf{{{plain}}}" if cell.best else plain

        lines = [" & ".join(column.translate(LATEX_SPECIAL) for column in self.columns) + r" \\ \hline"]
        lines += [" & ".join(text(cell) for cell in row) + r" \\" for row in self.rows]
        head = rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}} \hline"
        return "\n".join([head, *lines, r"\hline \end{tabular}", ""])

    def to_csv(self) -> str:
        """Return the table as comma-separated values."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([cell.text for cell in row] for row in self.rows)
        return file.getvalue()


def format_number(value: float, sign: bool = False, digits: int = 3) -> str:
    """Format a number with ``digits`` decimals, or with one from 10 on; a dash for NaN."""
    if math.isnan(value):
        return "-"
    digits = digits if abs(value) < 10 else 1
    return f"{value:{'+' if sign else ''}.{digits}f}"


def format_p(value: float) -> str:
    """Format a p value with three decimals, or with two significant digits below 0.001."""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def format_mean_and_sd(mean: float, sd: float) -> str:
    """Format a mean and its SD as ``mean ± SD``."""
    return f"{format_number(mean)} ± {format_number(sd)}"
