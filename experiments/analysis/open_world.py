"""Open-world detection at a glance: a line a score and stage, clean and under attack."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.analysis import names
from experiments.analysis.row import Row, where

GROUPS = ("near", "far")
WORST = "worst@both"  # attack_name of the strongest threat: anyone's images, whatever was found
NONE = "-"
FOOT = (
    "Open world: near | far, means over the splits of each, in percent. Attacked: in-distribution and OOD pictures, "
    "the worst that was found (no bound); * where attacks were aimed at other scores alone. Not named: by a bank "
    "without the texts that name what is to be detected."
)


@dataclass(frozen=True)
class Glance:
    """What there is of one score at one stage: figures as shares, near and far; None where it was not measured.

    aimed  whether the score itself was attacked.
    """

    score: str
    stage: str
    clean: tuple[float | None, ...]
    not_named: tuple[float | None, ...]
    attacked: tuple[float | None, ...]
    aimed: bool
    fpr95: tuple[float | None, ...]
    accuracy: float | None


COLUMNS = ("score", "stage", "AUROC", "not named", "attacked", "FPR95 (ID positive)", "ID accuracy")


def glances(rows: Sequence[Row], stages: Sequence[str]) -> list[Glance]:
    """In the order of the scores, each at all stages that it was measured at."""
    scores = dict.fromkeys(row.score for row in rows if row.score)
    found = []
    for score in scores:
        for stage in stages:
            own = where(rows, score=score, stage=stage)
            clean = where(own, attack_name=None)
            if clean:
                auroc, accuracy = where(clean, metric="auroc"), where(clean, metric="id_accuracy")
                found.append(
                    Glance(
                        score,
                        stage,
                        _means([(row, row.value) for row in auroc]),
                        _means([(row, row.without_named) for row in auroc if row.without_named is not None]),
                        _means([(row, row.value) for row in _strongest(where(own, metric="auroc"))]),
                        any(
                            row.attack and not str(row.attack_name).startswith("worst@")
                            for row in where(own, metric="auroc")
                        ),
                        _means([(row, row.value) for row in where(clean, metric="fpr95_id_pos")]),
                        accuracy[0].value if accuracy else None,
                    )
                )
    return found


def cells(rows: Sequence[Row], stages: Sequence[str]) -> list[list[str]]:
    """The table with its head; columns that nothing is known of are left out. Empty without open-world figures."""
    body = [
        [
            each.score,
            each.stage,
            _pair(each.clean),
            _pair(each.not_named),
            _pair(each.attacked) + ("" if each.aimed or each.attacked[0] is None else " *"),
            _pair(each.fpr95),
            _percent(each.accuracy),
        ]
        for each in glances(rows, stages)
    ]
    if not body:
        return []
    known = [place for place in range(len(COLUMNS)) if any(line[place].strip(" -|") for line in body)]
    head = [_titled(title, rows) for title in COLUMNS]
    return [[line[place] for place in known] for line in [head, *body]]


def table(rows: Sequence[Row], stages: Sequence[str]) -> str:
    """The same in ASCII, with a foot; empty without open-world figures."""
    found = cells(rows, stages)
    widths = [max(map(len, column)) for column in zip(*found, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in found]
    return "\n".join([*lines, FOOT]) if found else ""


def _strongest(rows: Sequence[Row]) -> list[Row]:
    """Of the first budget that was attacked within."""
    worst = where(rows, attack_name=WORST)
    return [row for row in worst if row.attack and worst[0].attack and row.eps_255 == worst[0].eps_255]


def _means(figures: Sequence[tuple[Row, float]]) -> tuple[float | None, ...]:
    """Per group its own row, which is the mean, or that of its only split."""
    found = []
    for group in GROUPS:
        members = [(row.split, value) for row, value in figures if row.group == group]
        found.append(next((value for split, value in members if split == group), members[0][1] if members else None))
    return tuple(found)


def _titled(title: str, rows: Sequence[Row]) -> str:
    worst = [row for row in rows if row.attack_name == WORST and row.attack]
    return f"{title}, {names.radius(worst[0].attack or {})}" if title == "attacked" and worst else title


def _pair(values: tuple[float | None, ...]) -> str:
    return " | ".join(_percent(value).rjust(5) for value in values)


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"
