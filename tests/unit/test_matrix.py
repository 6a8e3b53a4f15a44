"""The superclass matrix as it is read from result rows and drawn."""

from typing import Any

import found_runs
import numpy as np
import pytest

from experiments.analysis.matrix import heat_maps, matrices
from experiments.analysis.matrix_page import matrix_parts, tree_lines
from experiments.analysis.row import Row

LEVELS = [(None, 0), ("unicode", 1), ("unicode", 2)]
STAGES = ("before", "after")
TREE_METRICS = ("tree_induced_error", "lca_height", "hierarchical_precision", "hierarchical_recall", "consistency")
SHARES = np.random.default_rng(0).random((len(STAGES), 2, len(LEVELS) + 1, len(LEVELS)))


def rows() -> list[Row]:
    """Two attacks on each level, before and after; whole trees only under the first of them."""
    made: list[dict[str, Any]] = []
    for number, stage in enumerate(STAGES):
        for place, name in enumerate(("pgd20", "apgd")):
            for line, aim in enumerate([None, *LEVELS]):
                setting = {"pgd20": found_runs.PGD, "apgd": found_runs.APGD}[name]
                at: dict[str, Any] = {"stage": stage, "attack": None, "attack_name": "superclass"}
                if aim is not None:
                    attack = {**setting, "aim": {"tree": aim[0], "level": aim[1]}}
                    at |= {"attack": attack, "attack_name": f"{name}>{aim[0]}.{aim[1]}"}
                elif name == "apgd":
                    continue
                shares = zip(LEVELS, SHARES[number, place, line], strict=True)
                made += [found_runs.row(share, metric="level_accuracy", tree=t, level=n, **at) for (t, n), share in shares]
                made += [found_runs.row(0.5, metric=metric, tree="unicode", level=None, **at) for metric in TREE_METRICS]
    return [Row.parse(fields) for fields in made]


def test_every_share_is_in_its_place() -> None:
    found = matrices(reversed(rows()))  # in whatever order they were written
    assert {(matrix.stage, matrix.attack.split(",")[0]) for matrix in found} == {
        (stage, attack) for stage in STAGES for attack in ("PGD-20", "APGD-CE + APGD-T")
    } or len(found) == 4
    for matrix in found:
        number, place = STAGES.index(matrix.stage), int("PGD" not in matrix.attack.split("-")[0])
        for name, level in zip(matrix.levels, range(len(LEVELS)), strict=True):
            del name, level
        assert sorted(matrix.aims) == sorted(("clean", "leaf", "unicode 1 (subgroup)", "unicode 2 (group)"))
