"""Pieces of a page that needs nothing but itself: text is escaped, pictures are within, there are no scripts."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape as escape
from importlib.resources import files
from itertools import groupby

from experiments.analysis.row import Row
from experiments.analysis.table import SUSPECT, Line, bounds, points, value

TYPES = {b"\x89PNG": "image/png", b"<?xm": "image/svg+xml"}


def page(title: str, parts: Iterable[str]) -> str:
    """A whole HTML document."""
    style = (files("experiments.analysis") / "page.css").read_text(encoding="utf-8")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join(part for part in parts if part)
    top = f'<!doctype html>\n<html lang="en"><head>{head}\n<style>\n{style}</style></head>'
    return f"{top}\n<body><main>\n{body}\n</main></body></html>\n"


def section(heading: str, *parts: str) -> str:
    """Parts under a heading; nothing at all where all of them are empty."""
    inner = "\n".join(part for part in parts if part)
    return f"<section><h2>{escape(heading)}</h2>\n{inner}</section>" if inner else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; nothing for empty text."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>" if text else ""


def listing(items: Sequence[str]) -> str:
    """A bulleted list; nothing for no items."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>" if items else ""


def definitions(items: Mapping[str, str]) -> str:
    """Terms and what they are, without those that are empty."""
    return (
        "<dl>"
        + "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in items.items() if text)
        + "</dl>"
    )


def picture(image: bytes, alternative: str, caption: str) -> str:
    """SVG or PNG bytes with a caption; `alternative` is what those who can't see it read."""
    source = f"data:{TYPES[image[:4]]};base64,{b64encode(image).decode()}"
    return (
        f'<figure><img alt="{escape(alternative)}" src="{source}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def folded(summary: str, text: str) -> str:
    """Preformatted text behind a summary; nothing for empty text."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>" if text else ""


def unfolding(summary: str, inner: str) -> str:
    """A part of the page behind a summary; nothing for nothing."""
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>" if inner else ""


def grid(cells: Sequence[Sequence[str]]) -> str:
    """A table whose first line is its head and whose first column names the others; nothing for no cells."""
    if not cells:
        return ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in cells[0])
    body = [
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in cells[1:]
    ]
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def results(lines: Sequence[Line], stages: Sequence[str]) -> str:
    """The table of results: a row a question, a column a stage, suspect figures marked."""
    columns = [*stages, *(["change"] if len(stages) > 1 else []), "n"]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("", *columns))
    body = []
    for title, members in groupby(lines, key=lambda line: line.section):
        body.append(f'<tr class="section"><th scope="rowgroup" colspan="{len(columns) + 1}">{escape(title)}</th></tr>')
        body += [_line(line, stages) for line in members]
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _line(line: Line, stages: Sequence[str]) -> str:
    cells = [_cell(line.rows.get(stage)) for stage in stages]
    if len(stages) > 1:
        cells.append(f"<td>{points(line.change(stages), line.first.metric)}</td>")
    cells.append(f"<td>{line.counts}</td>")
    return f'<tr><th scope="row">{escape(line.label)}</th>{"".join(cells)}</tr>'


def _cell(row: Row | None) -> str:
    if row is None:
        return "<td>-</td>"
    range_ = f" <small>({bounds(row)})</small>" if bounds(row) else ""
    mark = f" <strong>{SUSPECT}</strong>" if row.suspect else ""
    return f"<td>{value(row)}{range_}{mark}</td>"
