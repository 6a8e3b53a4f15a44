"""The superclass matrix as it is read from result rows and drawn."""

from collections.abc import Iterator
from typing import Any

import found_runs
import numpy as np

from experiments.analysis.matrix import heat_maps, matrices
from experiments.analysis.matrix_page import matrix_parts, tree_lines
from experiments.analysis.row import Row
from experiments.analysis.table import lines

LEVELS: list[tuple[str | None, int]] = [(None, 0), ("unicode", 1), ("unicode", 2)]
STAGES = ("before", "after")
ATTACKS = {"pgd20": found_runs.PGD, "apgd": found_runs.APGD}
METRICS = ("tree_induced_error", "lca_height", "hierarchical_precision", "hierarchical_recall", "consistency")
CLEAN = np.random.default_rng(0).random((2, 3))  # stage, level looked at
SHARES = np.random.default_rng(1).random((2, 2, 3, 3))  # stage, attack, level aimed at, level looked at


def rows() -> list[Row]:
    """Two attacks on each level, before and after."""
    return [Row.parse(fields) for number in range(len(STAGES)) for fields in _stage(number)]


def _stage(number: int) -> Iterator[dict[str, Any]]:
    yield from _line(CLEAN[number], stage=STAGES[number], attack=None, attack_name="superclass")
    for place, (name, setting) in enumerate(ATTACKS.items()):
        for (tree, level), shares in zip(LEVELS, SHARES[number, place], strict=True):
            attack = {**setting, "aim": {"tree": tree, "level": level}}
            yield from _line(shares, stage=STAGES[number], attack=attack, attack_name=f"{name}>{tree}.{level}")


def _line(shares: np.ndarray, **at: Any) -> Iterator[dict[str, Any]]:
    for (tree, level), share in zip(LEVELS, shares, strict=True):
        yield found_runs.row(float(share), metric="level_accuracy", tree=tree, level=level, **at)
    for metric in METRICS:
        yield found_runs.row(0.5, metric=metric, tree="unicode", level=None, **at)


def test_every_share_is_in_its_place() -> None:
    found = matrices(rows())
    assert [matrix.stage for matrix in found] == ["before", "before", "after", "after"]
    for number, matrix in enumerate(found):
        stage, attack = divmod(number, 2)
        assert np.array_equal(matrix.accuracy, np.r_[CLEAN[stage][None], SHARES[stage, attack]])
        assert matrix.aims == ("clean", *matrix.levels)
        assert matrix.levels == ("leaf", "unicode 1 (subgroup)", "unicode 2 (group)")


def test_a_share_that_lacks_is_no_number() -> None:
    kept = [row for row in rows() if not (row.attack_name == "pgd20>unicode.1" and row.level == 2)]
    matrix = matrices(kept)[0]
    assert np.argwhere(np.isnan(matrix.accuracy)).tolist() == [[2, 2]]
    assert matrix.table().splitlines()[3].split()[-1] == "-"


def test_a_map_for_each_attack_and_stage() -> None:
    drawing = heat_maps(matrices(rows()))
    assert drawing is not None
    maps = [axes for axes in drawing.axes if axes.get_ylabel() != "accuracy by prompt, %"]
    assert [axes.get_title(loc="left") for axes in maps] == [
        f"{stage}: {attack}" for attack in ("PGD-20, L-inf 4/255", "APGD-CE + APGD-T, L-inf 4/255") for stage in STAGES
    ]
    told = [int(text.get_text()) for text in maps[0].texts]
    assert told == [round(100 * share) for share in np.r_[CLEAN[0][None], SHARES[0, 0]].flat]
    assert heat_maps([]) is None


def test_the_table_has_whole_trees_on_clean_pictures_and_under_attacks_on_the_leaves() -> None:
    found = tree_lines(rows(), STAGES)
    assert len(found) == 3 * len(METRICS)
    assert {line.section for line in found if line.first.attack} == {
        f"under {attack}, L-inf 4/255, aimed at the leaves" for attack in ("PGD-20", "APGD-CE + APGD-T")
    }
    assert all(set(line.rows) == set(STAGES) for line in found)


def test_they_stay_out_of_the_other_tables() -> None:
    plain = [Row.parse(fields) for fields in found_runs.rows()]
    assert lines([*plain, *rows()], STAGES) == lines(plain, STAGES)
    assert matrix_parts([], STAGES) == []
