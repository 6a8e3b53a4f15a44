"""A comparison, or any table, as Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.analysis import names
from experiments.analysis.comparison import Comparison, Spread
from experiments.analysis.table import points
from experiments.atomic import write_text

if TYPE_CHECKING:
    import pandas as pd

FOOT = (
    "Shares in percent, differences in points: mean ± standard deviation over seeds; in brackets the 95 % bootstrap "
    "interval of the mean, which is too narrow for a few seeds and leaves out the choice of the test samples. "
    "Behind a difference: at how many of the seeds it has the sign of its mean."
)
NONE = "-"
FIELDS = (
    "method", "figure", "seeds", "mean", "deviation", "low", "high",
    "baseline", "pairs", "difference", "difference_deviation", "difference_low", "difference_high", "agreeing",
)  # fmt: skip
LATEX = {"\\": r"\textbackslash{}", **{letter: f"\\{letter}" for letter in "&%$#_{}"}, "±": r"$\pm$"}

Cells = list[list[str]]
Cell = Callable[[Comparison, str, str], str]


def write(comparison: Comparison, folder: Path) -> str:
    """Writes sweep.md, sweep.csv and sweep.tex; returns the Markdown."""
    text = to_markdown(comparison)
    write_text(folder / "sweep.md", text)
    write_text(folder / "sweep.csv", to_csv(comparison))
    write_text(folder / "sweep.tex", to_latex(comparison))
    return text


def to_markdown(comparison: "Comparison | pd.DataFrame") -> str:
    """Two tables, aligned so that they read well in a terminal too, and what a reader must know; a frame as it is."""
    if not isinstance(comparison, Comparison):
        return _markdown(of_frame(comparison)) + "\n"
    parts = [f"# {comparison.title}", *map(_markdown, tables(comparison)), FOOT]
    told = {
        "Left out": comparison.exclusions,
        "Doubts about attacked figures": comparison.doubts,
        "Where it comes from": comparison.provenance,
    }
    parts += ["\n".join([f"{title}:", "", *(f"- {line}" for line in lines)]) for title, lines in told.items() if lines]
    return "\n\n".join(parts) + "\n"


def to_csv(comparison: "Comparison | pd.DataFrame") -> str:
    """A line a method and figure; shares in [0, 1]. A frame as it is."""
    if not isinstance(comparison, Comparison):
        return comparison.to_csv(index=comparison.index.names != [None], lineterminator="\n")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(FIELDS)
    for method in comparison.methods:
        for column in comparison.columns:
            spread, change = comparison.spread(method, column), comparison.difference(method, column)
            if spread is not None:
                paired = [comparison.baseline, *_numbers(change.spread), change.agreeing] if change else [""] * 7
                writer.writerow([method, column, *_numbers(spread), *paired])
    return buffer.getvalue()


def to_latex(comparison: "Comparison | pd.DataFrame") -> str:
    """The same tables for the package booktabs; what a reader must know is in comments."""
    if not isinstance(comparison, Comparison):
        return _latex(of_frame(comparison)) + "\n"
    notes = [comparison.title, FOOT, *comparison.exclusions, *comparison.doubts, *comparison.provenance]
    return "\n".join([*(f"% {note}" for note in notes), *map(_latex, tables(comparison))]) + "\n"


def of_frame(frame: "pd.DataFrame") -> Cells:
    """With the index where it has a name; numbers to four digits, nothing where there is none."""
    named = frame.index.names != [None]
    table = frame.reset_index() if named else frame
    lines = [[_text(value) for value in line] for line in table.itertuples(index=False)]
    return [[str(column) for column in table.columns], *lines]


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return "" if value is None else str(value)


def tables(comparison: Comparison) -> list[Cells]:
    """Means, and differences where there are two methods."""
    others = [method for method in comparison.methods if method != comparison.baseline]
    means = _cells(comparison, "mean over seeds", comparison.methods, _mean)
    changes = _cells(comparison, f"less {comparison.baseline}, paired by seed", others, _change)
    return [means, changes] if others else [means]


def _cells(comparison: Comparison, corner: str, methods: Sequence[str], cell: Cell) -> Cells:
    lines = [[method, *(cell(comparison, method, column) for column in comparison.columns)] for method in methods]
    return [[corner, *comparison.columns], *lines]


def _mean(comparison: Comparison, method: str, column: str) -> str:
    """`34.8 ± 1.2 [33.9, 35.6], 5 seeds`"""
    found = comparison.spread(method, column)
    if found is None:
        return NONE
    scale, form = (100, ".1f") if _share(column) else (1, ".4g")
    deviation = "" if found.deviation is None else f" ± {scale * found.deviation:{form}}"
    low_high = (
        "" if found.interval is None else " [{}, {}]".format(*(f"{scale * one:{form}}" for one in found.interval))
    )
    seeds = "1 seed" if len(found.seeds) == 1 else f"{len(found.seeds)} seeds"
    return f"{scale * found.mean:{form}}{deviation}{low_high}, {seeds}"


def _change(comparison: Comparison, method: str, column: str) -> str:
    """`+3.2 [+2.1, +4.4] 5/5`"""
    found = comparison.difference(method, column)
    if found is None:
        return NONE
    metric, spread = column.partition("/")[0], found.spread
    numbers = [spread.mean, *(spread.interval or ())]
    # One that is not 0 is not shown as 0: the end of an interval would seem to lie on it.
    decimals = next((each for each in (1, 2) if all(round(100 * one, each) or not one for one in numbers)), 3)
    mean, *low_high = (points(one, metric, decimals) for one in numbers)
    interval = f" [{', '.join(low_high)}]" if low_high else ""
    return f"{mean}{interval} {found.agreeing}/{len(spread.seeds)}"


def _share(column: str) -> bool:
    return column.partition("/")[0] in names.METRICS


def _numbers(spread: Spread) -> list[object]:
    """Seeds, mean, deviation, bounds; empty where there is one seed alone."""
    found = (spread.mean, spread.deviation, *(spread.interval or (None, None)))
    return [len(spread.seeds), *("" if number is None else f"{number:.8g}" for number in found)]


def _markdown(cells: Cells) -> str:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    header, *lines = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in cells]
    return "\n".join([header, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines])


def _latex(cells: Cells) -> str:
    header, *lines = [" & ".join(map(_escaped, line)) + r" \\" for line in cells]
    columns = "l" + "r" * (len(cells[0]) - 1)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header, r"\midrule", *lines, r"\bottomrule", r"\end{tabular}"]
    )


def _escaped(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
