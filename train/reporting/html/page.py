"""A self-contained HTML page: everything in one file, no script, nothing asked of any server. All text is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

# The browser itself refuses whatever is not in the file.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'"
STYLE = """
:root { color-scheme: light dark; --ink: #1e1e1e; --paper: #fafaf8; --faint: #6b6b6b; --line: #d8d8d4; --warn: #b2182b;
  --shade: 33, 102, 172 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e6; --paper: #1b1c1e; --faint: #a0a0a0; --line: #3a3b3e; --warn: #ff8a7a; --shade: 90, 160, 230 }
}
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto; padding: 1rem;
  max-width: 70rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.25rem; border-top: 2px solid var(--line); padding-top: 1rem; margin-top: 2.5rem }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: bottom }
th { font-weight: 600 } td { white-space: nowrap } tbody th, td { vertical-align: top }
th:first-child, .text { text-align: left } td.text { white-space: normal; min-width: 7rem; overflow-wrap: break-word }
.licence, .note { color: var(--faint); font-size: .9rem } .warning { color: var(--warn); font-weight: 600 }
img { max-width: 100%; height: auto } img.curves { background: #fff; border-radius: 4px }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem }
figure { margin: 0 } figcaption { font-size: .85rem; overflow-wrap: anywhere }
td.cell { background: rgba(var(--shade), var(--part)); min-width: 2.6rem }
a { color: inherit }
summary { cursor: pointer; font-weight: 600; margin: 1.6rem 0 .4rem }
"""


@dataclass(frozen=True)
class Number:
    """A number of a table: `text` is shown, `value` stands beside it in full, for whoever reads the page by program."""

    value: float
    text: str


@dataclass(frozen=True)
class Part:
    """A count of a confusion matrix, shaded by its part of the row, 0…1."""

    count: int
    part: float


@dataclass(frozen=True)
class Interval:
    """From one fraction to another, shown in percent."""

    low: float
    high: float


Cell = str | Number | Part | Interval | None


def percent(value: float | None) -> Cell:
    """A fraction as percent with one decimal; a dash where it is not defined."""
    return None if value is None else Number(value, f"{100 * value:.1f}")


def count(value: int) -> Cell:
    return Number(value, f"{value:,}")


def format_table(heads: Sequence[str], rows: Iterable[Sequence[Cell]], *, name: str = "") -> str:
    """A table that scrolls by itself where the window is narrow; the first column is the heads of the rows."""
    title = f' data-name="{escape(name)}"' if name else ""
    rows = list(rows)
    is_text = [all(isinstance(row[column], str) for row in rows) for column in range(len(heads))]
    head = "".join(
        f'<th scope="col"{" class=text" if text else ""}>{escape(one)}</th>'
        for one, text in zip(heads, is_text, strict=True)
    )
    body = "".join(
        f'<tr><th scope="row">{_format(row[0])}</th>{"".join(_format_cell(cell) for cell in row[1:])}</tr>\n'
        for row in rows
    )
    return (
        f'<div class="scroll"><table{title}>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n'
    )


def _format_cell(cell: Cell) -> str:
    if isinstance(cell, Part):
        return f'<td class="cell" style="--part: {0.75 * cell.part:.3f}">{_format(cell)}</td>'
    return f"<td{' class=text' if isinstance(cell, str) else ''}>{_format(cell)}</td>"


def _format(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, Part):
        return f'<data value="{cell.count}">{cell.count:,}</data>'
    if isinstance(cell, Interval):
        return " to ".join(f'<data value="{end!r}">{100 * end:.1f}</data>' for end in (cell.low, cell.high))
    if isinstance(cell, Number):
        return f'<data value="{cell.value!r}">{escape(cell.text)}</data>'
    return escape(cell)


def paragraph(text: str, kind: str = "") -> str:
    return f"<p{f' class={kind}' if kind else ''}>{escape(text)}</p>\n"


def heading(text: str, level: int = 3, anchor: str = "") -> str:
    return f"<h{level}{f' id={anchor}' if anchor else ''}>{escape(text)}</h{level}>\n"


def format_links(names: Sequence[str], anchors: Sequence[str]) -> str:
    """To other places of the page."""
    links = (f'<a href="#{anchor}">{escape(name)}</a>' for name, anchor in zip(names, anchors, strict=True))
    return f"<p>{' · '.join(links)}</p>\n"


def folded(title: str, content: str) -> str:
    """Content that a click unfolds."""
    return f"<details><summary>{escape(title)}</summary>\n{content}</details>\n"


def picture(uri: str, about: str, kind: str = "") -> str:
    """
    Args:
        uri: a data: URI; nothing else is taken.
    """
    assert uri.startswith("data:image/")
    return f'<img{f" class={kind}" if kind else ""} alt="{escape(about)}" src="{uri}">\n'


def format_page(title: str, content: str) -> bytes:
    """The whole file, UTF-8."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><meta name="referrer" content="no-referrer">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body>\n{content}</body></html>\n"
    ).encode()
