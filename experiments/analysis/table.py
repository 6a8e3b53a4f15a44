"""Stages side by side: what was measured, before and after, with intervals and counts."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs.errors import UserError
from experiments.analysis import names, open_world
from experiments.analysis.interval import wilson
from experiments.analysis.row import SWEEP, Row
from experiments.analysis.verdicts import verdicts

LOWER_IS_BETTER = ("fpr95_id_pos", "fpr95_ood_pos")
COLUMNS = (
    "metric", "dataset", "split", "level", "tree", "attack_name", "eps_255", "score", "stage", "seed", "value", "n",
)  # fmt: skip
QUALIFIERS = ("dataset", "split", "attack_name", "seed")
SUSPECT = "suspect"  # stands beside every figure that a check speaks against
FOOT = "Values in percent; change in points. In brackets: 95 % interval (Wilson). FPR95: lower is better."


@dataclass(frozen=True)
class Line:
    """One question and its answers: `rows` by stage, in the order of the table's stages, some may lack."""

    section: str
    label: str
    rows: Mapping[str, Row]

    @property
    def first(self) -> Row:
        """Any of the rows, for what they have in common."""
        return next(iter(self.rows.values()))

    @property
    def remark(self) -> str:
        """Which of the figures are suspect, and the first of the reasons; empty for most."""
        found = {stage: row.suspect for stage, row in self.rows.items() if row.suspect}
        more = {stage: f", and {len(reasons) - 1} more" for stage, reasons in found.items() if len(reasons) > 1}
        return ", ".join(f"{stage} (suspect: {why[0]}{more.get(stage, '')})" for stage, why in found.items())

    @property
    def counts(self) -> str:
        """n, or one n a stage where they differ."""
        return " / ".join(dict.fromkeys(f"{row.n:,}" for row in self.rows.values()))

    def change(self, stages: Sequence[str]) -> float | None:
        """Last minus first stage; None where one of them lacks."""
        old, new = self.rows.get(stages[0]), self.rows.get(stages[-1])
        return new.value - old.value if old and new and len(stages) > 1 else None


def stages_of(rows: Sequence[Row], wanted: Sequence[str] = ("before", "after")) -> list[str]:
    """The wanted stages that were measured; all that were, in order of appearance, where none of the wanted was."""
    found = list(dict.fromkeys(row.stage for row in rows))
    return [stage for stage in wanted if stage in found] or found


def lines(rows: Sequence[Row], stages: Sequence[str]) -> list[Line]:
    """The table's lines: clean pictures, attacks, open-world splits. The eps sweep is left to its curve; the superclass
    matrix, and attacks on open-world scores, to their own tables."""
    answers: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in rows:
        if row.stage in stages and row.attack_name != SWEEP and not (row.superclass or row.attacked_score):
            answers.setdefault(row.question, {})[row.stage] = row
    ordered = [{stage: found[stage] for stage in stages if stage in found} for found in answers.values()]
    firsts = [next(iter(found.values())) for found in ordered]
    titles = _titles(firsts)
    made = [Line(titles[row.question], _label(row), found) for row, found in zip(firsts, ordered, strict=True)]
    sections = list(dict.fromkeys(line.section for line in sorted(made, key=_section_order)))
    return sorted(made, key=lambda line: (sections.index(line.section), *_order_within(line.first)))


def compare(rows: Sequence[Row], stages: Sequence[str] = ("before", "after")) -> str:
    """The side-by-side table for a terminal, in ASCII; one column a stage that was measured. Below it, what the checks
    of the attacks say, and open-world detection at a glance.

    Raises UserError where nothing was measured.
    """
    if not rows:
        raise UserError("there are no results to compare; start the run again to measure")
    shown = stages_of(rows, stages)
    body = [line for line in lines(rows, shown) if line.first.score is None]
    header = ["", *shown, *(["change"] if len(shown) > 1 else []), "n"]
    cells = [header, *(_cells(line, shown) for line in body)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    text = [_align(header, widths)]
    section = ""
    for line, row in zip(body, cells[1:], strict=True):
        if line.section != section:
            text += [line.section]
            section = line.section
        text += [_align(row, widths)]
    checked = [f"  {each}" for each in verdicts([row for line in body for row in line.rows.values()])]
    glance = open_world.table(rows, shown)
    return "\n".join(
        [*text, FOOT, *(["Checks of the attacks:", *checked] if checked else []), *(["", glance] if glance else [])]
    )


def to_csv(rows: Sequence[Row]) -> str:
    """All rows, the eps sweep too, one measurement a line; values and intervals as shares in [0, 1]."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*COLUMNS, "low", "high", "suspect"])
    for row in rows:
        low, high = interval(row) or ("", "")
        writer.writerow([*(getattr(row, name) for name in COLUMNS), low, high, "; ".join(row.suspect)])
    return buffer.getvalue()


def interval(row: Row) -> tuple[float, float] | None:
    """The 95 % interval: Wilson's of an accuracy, the bootstrap's where the row has one; None for other metrics."""
    if row.low is not None and row.high is not None:
        return row.low, row.high
    return wilson(row.value, row.n) if row.metric == "accuracy" else None


def value(row: Row) -> str:
    """The figure in percent with one decimal; metrics that are not known to be shares as they are."""
    return f"{100 * row.value:.1f}" if row.metric in names.METRICS else f"{row.value:.4g}"


def points(change: float | None, metric: str = "accuracy", decimals: int = 1) -> str:
    """A signed difference, in points of a percentage for shares; empty for None."""
    if change is None:
        return ""
    return f"{round(100 * change, decimals) + 0.0:+.{decimals}f}" if metric in names.METRICS else f"{change:+.4g}"


def bounds(row: Row) -> str:
    """The interval in percent, `89.6-92.6`; empty where there is none."""
    found = interval(row)
    return f"{100 * found[0]:.1f}-{100 * found[1]:.1f}" if found else ""


def _cells(line: Line, stages: Sequence[str]) -> list[str]:
    change = [points(line.change(stages), line.first.metric)] if len(stages) > 1 else []
    return [f"  {line.label}", *(_cell(line.rows.get(stage)) for stage in stages), *change, line.counts]


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    figure = f"{value(row)} ({bounds(row)})" if interval(row) else value(row)
    return f"{figure} {SUSPECT}" if row.suspect else figure


def _align(cells: Sequence[str], widths: Sequence[int]) -> str:
    label, *middle = (
        cell.ljust(width) if column < len(cells) - 2 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([label, *middle]).rstrip()


def _label(row: Row) -> str:
    parts = (names.metric(row.metric), names.level(row.tree, row.level) if row.score is None else "")
    return ", ".join(part for part in parts if part)


def _titles(rows: Sequence[Row]) -> dict[tuple[object, ...], str]:
    """Question -> section. Where a title alone would not tell rows apart, the QUALIFIERS that do are added."""
    plain = {row.question: _title(row, rows) for row in rows}
    titles = {}
    for row in rows:
        peers = [peer for peer in rows if plain[peer.question] == plain[row.question]]
        varying = [name for name in QUALIFIERS if len({getattr(peer, name) for peer in peers}) > 1]
        titles[row.question] = ", ".join([plain[row.question], *(f"{name} {getattr(row, name)}" for name in varying)])
    return titles


def _title(row: Row, rows: Sequence[Row]) -> str:
    if row.score is None:
        return "clean" if row.attack is None else f"under {names.attack(row.attack)}"
    against = "" if row.attack is None else f", under {names.attack(row.attack)}"
    mean = ", mean of splits" if any(other.split.startswith(f"{row.split}_") for other in rows) else ""
    return f"{names.score(row.score)}, {names.split(row.split)}{mean}{against}"


def _section_order(line: Line) -> tuple[bool, bool]:
    return line.first.score is not None, line.first.attack is not None


def _order_within(row: Row) -> tuple[int, str, int]:
    known = list(names.METRICS)
    position = known.index(row.metric) if row.metric in known else len(known)
    return position, row.tree or "", row.level or 0
