"""The figures in words. Every word follows from a number: gains and losses are told alike."""

from collections.abc import Sequence

from experiments.analysis import names
from experiments.analysis.interval import overlap
from experiments.analysis.row import Row
from experiments.analysis.table import Line, interval, lines, stages_of, value


def headline(rows: Sequence[Row]) -> str:
    """One or two sentences on clean accuracy, the first attack's, and near-OOD AUROC; empty where none was measured."""
    stages = stages_of(rows)
    table = lines(rows, stages)
    told = [line for line in (_robust(table), _clean(table), _near(table)) if line is not None]
    whole = [line for line in told if line.change(stages) is not None]
    if not whole:
        return " ".join(f"{_subject(line)} was {_figure(line.first)} ({line.first.stage})." for line in told)
    clauses = [_clause(line, stages, first=number == 0) for number, line in enumerate(whole)]
    sentences = [f"Fine-tuning {_listing(clauses)}.", _vaccinated(table, stages), _caution(whole)]
    return " ".join(sentence for sentence in sentences if sentence)


def open_world(rows: Sequence[Row]) -> list[str]:
    """What fine-tuning did to AUROC and FPR95, a sentence for each OOD split; empty where nothing was measured."""
    stages = stages_of(rows)
    table = [line for line in lines(rows, stages) if line.first.score and line.change(stages) is not None]
    errors = {line.section: line for line in table if line.first.metric == "fpr95_id_pos"}
    sentences = []
    for line in table:
        if line.first.metric == "auroc":
            error = errors.get(line.section)
            also = f"; FPR95 (ID positive) {_movement(error, stages)}" if error else ""
            sentences.append(f"{line.section}: AUROC {_movement(line, stages)}{also}.")
    return sentences


def cost(rows: Sequence[Row]) -> str:
    """What fine-tuning took from the ability to tell the unknown, over all OOD splits; empty if not measured."""
    stages = stages_of(rows)
    changes = [line.change(stages) for line in lines(rows, stages) if line.first.metric == "auroc"]
    moved = [round(100 * change, 1) for change in changes if change is not None]
    lost = [change for change in moved if change < 0]
    if not moved:
        return ""
    if not lost:
        return "On no split did fine-tuning cost AUROC."
    worst = -min(lost)
    return (
        f"Fine-tuning cost AUROC on {len(lost)} of {len(moved)} OOD lines of the table, by up to {worst:.1f} points. "
        "There the model tells the unknown from the known less well than before, which clean and robust accuracy alone "
        "do not show."
    )


def _robust(table: Sequence[Line]) -> Line | None:
    attacked = (line for line in table if line.first.attack is not None and _is_leaf_accuracy(line.first))
    return next(attacked, None)


def _clean(table: Sequence[Line]) -> Line | None:
    return next((line for line in table if line.first.clean and _is_leaf_accuracy(line.first)), None)


def _near(table: Sequence[Line]) -> Line | None:
    """AUROC on near-OOD: the mean of its splits where there is one, or else the first split."""
    near = [line for line in table if line.first.metric == "auroc" and line.first.split.startswith("near")]
    found = [line for line in near if line.first.clean]
    return min(found, key=lambda line: line.first.split != "near", default=None)


def _vaccinated(table: Sequence[Line], stages: Sequence[str]) -> str:
    """AUROC on near-OOD of a score that only the last stage has."""
    near = _near([line for line in table if tuple(line.rows) == (stages[-1],)])
    return "" if near is None else f"After vaccination, {_subject(near)} is {_figure(near.first)}."


def _is_leaf_accuracy(row: Row) -> bool:
    return row.metric == "accuracy" and row.level == 0


def _subject(line: Line) -> str:
    row = line.first
    if row.metric != "accuracy":
        return f"{names.score(row.score or '')} AUROC on {names.split(row.split)}"
    return "Clean accuracy" if row.clean else f"Accuracy {line.section}"


def _figure(row: Row) -> str:
    return f"{value(row)} %, n = {row.n:,}"


def _clause(line: Line, stages: Sequence[str], first: bool) -> str:
    """`raised accuracy under PGD-20, L-inf 4/255 from 2.6 % to 33.1 % (+30.5 points)`."""
    change = round(100 * (line.change(stages) or 0.0), 1)
    subject = _subject(line)
    subject = subject.replace("Clean", "clean").replace("Accuracy", "accuracy")
    old, new = line.rows[stages[0]], line.rows[stages[-1]]
    span = f"({value(old)} % to {value(new)} %, n = {line.counts})"
    if change == 0:
        return f"left {subject} where it was {span}"
    if first:
        verb = "raised" if change > 0 else "lowered"
        return f"{verb} {subject} by {abs(change):.1f} points {span}"
    return f"{'gained' if change > 0 else 'cost'} {abs(change):.1f} points of {subject} {span}"


def _movement(line: Line, stages: Sequence[str]) -> str:
    change = round(100 * (line.change(stages) or 0.0), 1)
    old, new = line.rows[stages[0]], line.rows[stages[-1]]
    verb = "stays at" if change == 0 else "rises from" if change > 0 else "falls from"
    return f"{verb} {value(new)} %" if change == 0 else f"{verb} {value(old)} % to {value(new)} %"


def _listing(parts: Sequence[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def _caution(told: Sequence[Line]) -> str:
    """What a reader must know before believing the first sentence."""
    suspect = [f"{_subject(line)}: {line.remark}." for line in told if line.remark]
    close = [_subject(line) for line in told if _overlapping(line)]
    if close:
        suspect.append(f"The 95 % intervals before and after overlap for: {'; '.join(close)}.")
    return " ".join(suspect)


def _overlapping(line: Line) -> bool:
    found = [interval(row) for row in line.rows.values()]
    return len(found) > 1 and overlap(found[0], found[-1])
