"""What a stage of a run has measured, as W&B shows it: values of a summary, a table, and rows of pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.analysis.finding import figures
from experiments.analysis.loading import Pictures, load_evidence, load_rows
from experiments.analysis.pictures import amplification
from experiments.analysis.row import Row, where
from lightning_modules.hierarchy import Tree

FIGURES = ("metric", "attack_name", "eps_255", "score", "dataset", "split", "tree", "level", "value", "n", "suspect")
PICTURES = 200  # rows of a table: each holds three images
PREDICTIONS = {"class": "label", "clean": "clean_prediction", "adversarial": "adversarial_prediction"}
FIRED = {"clean antibody": "clean_antibody", "adversarial antibody": "adversarial_antibody"}


def measured(folder: Path, stage: str, trees: Sequence[Tree] = ()) -> dict[str, Any]:
    """As JSON takes it: `summary`, `table` and, where pictures are kept, `pictures`: a table to which their images are
    yet to be added, from the file `evidence`.

    The figures of the stage `after` have their own names, by which a sweep asks for them; before those of others is the
    stage.
    """
    rows = where(load_rows(folder), stage=stage)
    prefix = "" if stage == "after" else f"{stage}/"
    path, evidence = folder / f"evidence-{stage}.npz", load_evidence(folder).get(stage)
    found = evidence.pictures if evidence else None
    return {
        "stage": stage,
        "summary": {f"{prefix}{figure.name}": figure.value for figure in figures(rows)},
        "table": {"columns": FIGURES, "data": [_line(row) for row in rows]},
        "pictures": _pictures(path, found, trees) if found else None,
    }


def _line(row: Row) -> list[Any]:
    return ["; ".join(row.suspect) if name == "suspect" else getattr(row, name) for name in FIGURES]


def _pictures(path: Path, found: Pictures, trees: Sequence[Tree]) -> dict[str, Any]:
    columns = dict([*_names(found), *_paths(found, trees), *_fired(path)])
    lines = [list(line)[:PICTURES] for line in columns.values()]
    return {
        "evidence": str(path.resolve()),
        "amplification": amplification(found),
        "columns": list(columns),
        "data": [list(line) for line in zip(*lines, strict=True)],
    }


def _names(found: Pictures) -> Iterator[tuple[str, list[str]]]:
    for column, name in PREDICTIONS.items():
        title = column if column == "class" else f"{column} prediction"
        yield title, [found.class_names[index] for index in getattr(found, name)]


def _paths(found: Pictures, trees: Sequence[Tree]) -> Iterator[tuple[str, list[str]]]:
    """From the leaf up; a level of one class says nothing and is left out."""
    for tree in trees:
        levels = [level for level, names in enumerate(tree.levels) if len(names) > 1]
        classes = [(tree.levels[level], tree.ancestors(level).tolist()) for level in levels]
        for column, name in PREDICTIONS.items() if len(levels) > 1 else ():
            paths = [[names[ancestors[leaf]] for names, ancestors in classes] for leaf in getattr(found, name)]
            yield f"{tree.name}: {column}", [" < ".join(path) for path in paths]


def _fired(path: Path) -> Iterator[tuple[str, list[str]]]:
    with np.load(path, allow_pickle=False) as file:
        for column, name in FIRED.items():
            if f"pictures/{name}" in file:
                yield column, [str(caption) for caption in file[f"pictures/{name}"]]
