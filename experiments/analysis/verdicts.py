"""What the checks of each attack say about its figures, in lines to be printed beside them."""

from collections.abc import Sequence

from experiments.analysis import names
from experiments.analysis.row import SWEEP, Row


def verdicts(rows: Sequence[Row]) -> list[str]:
    """One line for each stage and outcome: the attacks, then `suspect` with the reasons, or what was looked at."""
    attacks: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.attack is not None:
            attacks.setdefault((row.stage, _verdict(row)), []).append(title(row))
    return [
        f"{stage}, {'; '.join(dict.fromkeys(titles))}: {found}"
        if len([other for other, _ in attacks if other == stage]) > 1
        else f"{stage}, all attacks: {found}"
        for (stage, found), titles in attacks.items()
    ]


def title(row: Row) -> str:
    """What a reader calls the row's attack."""
    return "the curve over eps" if row.attack_name == SWEEP else names.attack(row.attack)


def _verdict(row: Row) -> str:
    if row.suspect:
        return f"suspect: {'; '.join(row.suspect)}"
    looked = [words for name, words in names.CHECKS.items() if name in row.checks]
    return f"no sign of a weak attack by {', '.join(looked)}" if looked else "not checked"
