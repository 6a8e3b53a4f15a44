"""The report's section on superclasses."""

from collections.abc import Iterable, Sequence

from experiments.analysis import figure, names, page
from experiments.analysis.matrix import heat_maps, matrices
from experiments.analysis.row import Row
from experiments.analysis.table import Line

CAPTION = (
    "Each line of a map: what is left of every level (columns) when the adversary aims at one level's prompts. The top "
    "line is clean pictures. The diagonal is how robust a level is against the adversary that aims at it; off it, how "
    "far what was made for one level misleads another. A picture counts where clean and attacked prediction are right."
)
DEFINITIONS = {
    "accuracy by prompt": "Share of pictures whose best prompt among those of the level itself is right.",
    "tree-induced error": "Edges from the true leaf to the predicted one through their lowest common ancestor, mean.",
    "height of mistakes": "Level of the lowest common ancestor of the true and the predicted leaf, mean over mistakes.",
    "hierarchical precision, recall": "Of the predicted leaf and its ancestors below the root, and of the true leaf "
    "and its own, the share that they have in common.",
    "consistency": "Share of pictures whose prediction by prompt at each level is the parent of the one below.",
}


def matrix_parts(rows: Sequence[Row], stages: Sequence[str]) -> list[str]:
    """Heat maps, a table of what concerns whole trees, and what the terms mean; empty where nothing was measured."""
    rows = [row for row in rows if row.stage in stages]
    if not rows:
        return []
    drawing = heat_maps(matrices(rows))
    shown = f"{CAPTION} n = {' / '.join(dict.fromkeys(f'{row.n:,}' for row in rows if row.level == 0))}."
    alternative = "Heat maps of accuracy by level that is looked at and level that is attacked"
    return [
        page.picture(figure.svg(drawing), alternative, shown) if drawing else "",
        page.results(tree_lines(rows, stages), stages),
        page.definitions(DEFINITIONS),
        page.listing(_suspects(rows)),
    ]


def tree_lines(rows: Iterable[Row], stages: Sequence[str]) -> list[Line]:
    """Figures of whole trees: on clean pictures, under attacks on each level in turn, and on the leaves."""
    answers: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in rows:
        if row.level is None and (row.attack is None or row.attack["aim"]["level"] in (None, 0)):
            answers.setdefault(row.question, {})[row.stage] = row
    lines = []
    for found in answers.values():
        ordered = {stage: found[stage] for stage in stages if stage in found}
        row = next(iter(ordered.values()))
        lines.append(Line(_section(row), f"{names.metric(row.metric)}: {row.tree or 'all trees'}", ordered))
    sections = list(dict.fromkeys(line.section for line in lines))
    return sorted(lines, key=lambda line: sections.index(line.section))


def _section(row: Row) -> str:
    if row.attack is None:
        return "clean"
    aimed = "the leaves" if row.attack["aim"]["level"] == 0 else "each level in turn"
    return f"under {names.attack(row.attack)}, aimed at {aimed}"


def _suspects(rows: Iterable[Row]) -> list[str]:
    found = {f"{row.stage}, {row.attack_name}: {'; '.join(row.suspect)}": None for row in rows if row.suspect}
    return list(found)
