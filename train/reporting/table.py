"""One table type for every report, rendered as text, CSV and LaTeX (and as HTML in `reporting.html`).

A report lists its columns once. A column appears in each rendering for which it has a heading, so that a new column is one
`Column` in one file.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from shared.csv_tables import encode_csv
from train.reporting.spread import Spread

LINE_LENGTH = 120
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "→": r"$\to$",
    "−": "$-$",
    "–": "--",
}
_LATEX_SPECIAL = re.compile("|".join(re.escape(character) for character in _LATEX))


def escape_latex(text: str) -> str:
    """Return any text as one line of LaTeX that prints it; no character starts a command or a comment."""
    return _LATEX_SPECIAL.sub(lambda match: _LATEX[match[0]], join_lines(text))


def join_lines(text: str) -> str:
    """Return text from a file as one line."""
    return " ".join(text.split())


def wrap(text: str, first: str = "", later: str = "  ") -> str:
    """Return text in lines of LINE_LENGTH, the first and the later ones indented."""
    return textwrap.fill(join_lines(text), LINE_LENGTH, initial_indent=first, subsequent_indent=later)


# --- formats ---


@dataclass(frozen=True)
class Format:
    """How a column writes its values; None is a dash in text and LaTeX, and empty in CSV.

    parts: attributes of a value that CSV writes in columns of their own, KEY_PART; empty: the value itself.
    """

    text: Callable[[Any], str]
    latex: Callable[[Any], str]
    parts: tuple[str, ...] = ()
    align: str = "r"  # of the column in LaTeX


def format_percent(value: float | None, sign: str = "") -> str:
    """Return a fraction in percent with one decimal; a dash for None."""
    return "–" if value is None else f"{round(100 * value, 1) + 0.0:{sign}.1f}"  # no minus before zero


def format_number(value: float | None, sign: str = "") -> str:
    """Return a number with three decimals; a dash for None."""
    return "–" if value is None else f"{round(value, 3) + 0.0:{sign}.3f}"  # as above


def format_p(p: float | None) -> str:
    """Return a p-value with three decimals; empty for None."""
    if p is None:
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _plain(text: Callable[[Any], str], align: str = "r") -> Format:
    """Return a column format whose LaTeX is its escaped text."""
    return Format(text, lambda value: escape_latex(text(value)), align=align)


def decimals(num: int, unit: str = "", scale: float = 1.0) -> Format:
    """Return a format of numbers, divided by `scale`, with `num` decimals."""
    return _plain(lambda value: f"{value / scale:,.{num}f}{unit}")


TEXT = _plain(str, align="l")
COUNT = _plain(lambda value: f"{value:,}")
P_VALUE = _plain(format_p)


class Unit:
    """How scores of one kind are written: `value`, and a Spread of values or of differences between values."""

    def __init__(self, number: Callable[..., str], symbol: str, factor: float) -> None:
        """
        Args:
            number: (value or None, sign of a difference) → text. symbol: " %" or nothing. factor: of the axes of figures.
        """
        self.number, self.symbol, self.factor = number, symbol, factor
        self.value = _plain(number, align="c")
        self.spread, self.difference = (self._format_spreads(sign, align) for sign, align in (("", "c"), ("+", "r")))

    def _format_spreads(self, sign: str, align: str) -> Format:
        """Return the format of mean ± std; of a single value the mean alone."""

        def format_text(spread: Spread) -> str:
            mean = self.number(spread.mean, sign)
            return mean if spread.std is None else f"{mean} ± {self.number(spread.std)}"

        def format_latex(spread: Spread) -> str:
            mean = self.number(spread.mean, sign)
            if spread.std is None:
                return f"${mean}$" if sign and spread.mean is not None else escape_latex(mean)
            return rf"${mean}_{{\pm {self.number(spread.std)}}}$"

        return Format(format_text, format_latex, ("mean", "std", "num"), align)


UNITS = {"percent": Unit(format_percent, " %", 100.0), "number": Unit(format_number, "", 1.0)}  # by Score.kind
PERCENT, SPREAD = UNITS["percent"].value, UNITS["percent"].spread


# --- tables ---


@dataclass(frozen=True)
class Column:
    """A value of every row, and its heading in each rendering; without a heading the column is left out there."""

    value: Callable[[Any], Any]  # of a row
    format: Format = TEXT
    key: str = ""  # heading in CSV
    title: str = ""  # heading on a console and in HTML
    latex: str | None = None  # heading in LaTeX, already escaped
    row_format: Callable[[Any], Format] | None = None  # of a row, where rows have different ones; in text and LaTeX

    def csv_keys(self) -> list[str]:
        return [f"{self.key}_{part}" for part in self.format.parts] or [self.key]

    def csv_values(self, row: Any) -> list[Any]:
        value = self.value(row)
        return [None if value is None else getattr(value, part) for part in self.format.parts] or [value]

    def text(self, row: Any) -> str:
        value = self.value(row)
        return "–" if value is None else self._format_of(row).text(value)

    def latex_text(self, row: Any) -> str:
        value = self.value(row)
        return "--" if value is None else self._format_of(row).latex(value)

    def _format_of(self, row: Any) -> Format:
        return self.format if self.row_format is None else self.row_format(row)


@dataclass(frozen=True)
class Table:
    """Rows of any type, and the columns that read them; the first column names the row."""

    columns: Sequence[Column]
    rows: Sequence[Any]

    def format_text(self) -> list[str]:
        """Return one line for the headings and one per row, the first column and texts flush left, the others flush right."""
        columns = [column for column in self.columns if column.title]
        cells = [[c.title for c in columns], *([c.text(row) for c in columns] for row in self.rows)]
        return align(cells, [number for number, c in enumerate(columns) if c.format is TEXT and not c.row_format])

    def format_csv(self) -> str:
        """Return CSV with unrounded values, fractions where text has percent; empty for None."""
        columns = [column for column in self.columns if column.key]
        keys = [key for column in columns for key in column.csv_keys()]
        rows = ([value for column in columns for value in column.csv_values(row)] for row in self.rows)
        return encode_csv([keys, *rows]).decode()

    def format_latex(self, rules: Sequence[int] = (), head: Sequence[str] = ()) -> list[str]:
        """Return the lines of a booktabs tabular.

        Args:
            rules: indices of rows that a line stands above. head: lines above the headings of columns.
        """
        columns = [column for column in self.columns if column.latex is not None]
        lines = [rf"\begin{{tabular}}{{{''.join(column.format.align for column in columns)}}}", r"\toprule"]
        lines += [*head, _latex_row([column.latex or "" for column in columns]), r"\midrule"]
        for index, row in enumerate(self.rows):
            lines += [r"\midrule"] * (index in rules)
            lines.append(_latex_row([column.latex_text(row) for column in columns]))
        return [*lines, r"\bottomrule", r"\end{tabular}"]


def align(cells: Sequence[Sequence[str]], texts: Collection[int] = ()) -> list[str]:
    """Return a line per row, the first column and `texts` (indices of columns) flush left, the others flush right."""
    sides = ["<" if number in {0, *texts} else ">" for number in range(len(cells[0]))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True)).rstrip() for row in cells]


def latex_comments(lines: Sequence[str], caption: str) -> list[str]:
    """Return lines as LaTeX comments, the last one with the package that a tabular needs and its caption."""
    comments = [f"% {join_lines(line)}" for line in lines]
    return [*comments, rf"% needs \usepackage{{booktabs}}; \caption{{{escape_latex(caption)}}}"]


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
