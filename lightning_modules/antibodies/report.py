"""What a selection kept and dropped, as a table."""

from collections.abc import Sequence

from lightning_modules.antibodies.bank import Bank
from lightning_modules.antibodies.selection import Selection

EXAMPLES = 3
RULES = {
    "name": "names an in-distribution class",
    "duplicate": "says the same as another",
    "foreign": "too near to another class",
    "near": "too near",
    "far": "too far from its class",
}


def report(bank: Bank, selection: Selection) -> str:
    """A line for what was kept and for each rule that dropped something: how many of each family, and examples."""
    rules = [reason.partition(":")[0] if reason else None for reason in selection.reasons]
    families = list(bank.families)
    rows = [["", *families, "for instance"]]
    for rule in (None, *RULES):
        places = [place for place, dropped_by in enumerate(rules) if dropped_by == rule]
        if places or rule is None:
            counts = [sum(bank.antibodies[place].family == family for place in places) for family in families]
            rows.append([RULES[rule] if rule else "kept", *map(str, counts), _examples(bank, selection, places)])
    return _table(rows)


def _examples(bank: Bank, selection: Selection, places: Sequence[int]) -> str:
    """Some, evenly spread."""
    chosen = [places[step * len(places) // EXAMPLES] for step in range(min(EXAMPLES, len(places)))]
    return "; ".join(_told(bank, selection, place) for place in chosen)


def _told(bank: Bank, selection: Selection, place: int) -> str:
    each, reason = bank.antibodies[place], selection.reasons[place]
    detail = reason.partition(": ")[2] if reason else each.class_name
    return f"{each.caption or 'noise'}" + (f" ({detail})" if detail else "")


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 0 < place < len(row) - 1 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
