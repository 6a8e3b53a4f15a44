"""Attacks that differ in one setting alone become a curve, and the plots draw all of them."""

from collections.abc import Sequence
from typing import Any

import found_runs
import pytest

from experiments.analysis import Row, curves
from experiments.analysis.family import Family, labels, over_radii, over_steps

STAGES = ("before", "after")
APGD = {"kind": "apgd", "norm": "linf", "steps": 100, "restarts": 1, "loss": "ce"}
STANDARD = {"kind": "auto_attack", "version": "standard", "norm": "linf", "attacks": [], "steps": 100}


def attacked(value: float, eps: float, attack: dict[str, Any] = APGD, n: int = 200, **fields: Any) -> Row:
    """A row as `evaluate --attacks ... --eps ...` writes it; `stage` and the like may be given."""
    setting = {**attack, "eps_255": eps}
    return Row.parse(found_runs.row(value, n, attack=setting, attack_name=f"{attack['kind']}@{eps:g}", **fields))


def clean(value: float = 0.9, n: int = 200, **fields: Any) -> Row:
    return Row.parse(found_runs.row(value, n, **fields))


def drawn(family: Family, stage: str = "before") -> list[tuple[float, float]]:
    return [(family.at(row), row.value) for row in family.points[stage]]


def called(rows: Sequence[Row]) -> list[str]:
    return labels(over_radii(rows, STAGES))


def test_each_attack_gets_a_curve_that_clean_accuracy_leads() -> None:
    rows = [attacked(0.1, 4.0), attacked(0.3, 2.0), clean(), attacked(0.2, 2.0, STANDARD), attacked(0.0, 4.0, STANDARD)]
    first, second = over_radii(rows, STAGES)
    assert drawn(first) == [(0, 0.9), (2, 0.3), (4, 0.1)]
    assert drawn(second) == [(0, 0.9), (2, 0.2), (4, 0.0)]
    assert called(rows) == ["APGD-CE", "AutoAttack"]


def test_clean_accuracy_is_that_of_its_stage_and_if_possible_of_as_many_samples() -> None:
    sweep = clean(0.8, 200, attack_name="sweep")
    later = [attacked(0.5, eps, stage="after") for eps in (2.0, 4.0)]
    rows = [clean(0.9, 1600), sweep, clean(0.7, 1600, stage="after"), attacked(0.3, 2.0), attacked(0.1, 4.0), *later]
    (family,) = over_radii(rows, STAGES)
    assert drawn(family)[0] == (0, 0.8)
    assert drawn(family, "after")[0] == (0, 0.7)


def test_step_sizes_follow_the_radius_and_tell_no_attacks_apart() -> None:
    grid = [attacked(0.3 / eps, eps, {**found_runs.PGD, "step_255": eps / 8}) for eps in (1.0, 2.0)]
    (family,) = over_radii(grid, STAGES)
    assert drawn(family) == [(1, 0.3), (2, 0.15)]


def test_of_two_figures_at_a_radius_the_larger_sample_and_then_the_lower_accuracy_counts() -> None:
    steps = [{**found_runs.PGD, "step_255": step} for step in (1.0, 0.5, 0.25)]
    same = [attacked(0.3, 4.0, steps[0], 500), attacked(0.2, 4.0, steps[1], 500), attacked(0.1, 4.0, steps[2], 50)]
    for rows in (same, same[::-1]):
        (family,) = over_radii([*rows, attacked(0.5, 2.0, steps[0])], STAGES)
        assert drawn(family) == [(2, 0.5), (4, 0.2)]


def test_an_attack_at_one_radius_stands_beside_curves_of_its_norm_alone() -> None:
    single, far = attacked(0.1, 4.0, STANDARD), attacked(0.1, 128.0, {**STANDARD, "norm": "l2"})
    assert over_radii([clean(), single, far], STAGES) == []
    curve, mark = over_radii([clean(), single, far, attacked(0.3, 2.0), attacked(0.1, 4.0)], STAGES)
    assert (curve.curved, drawn(mark)) == (True, [(4, 0.1)])


@pytest.mark.parametrize(("name", "value"), [("loss", "dlr"), ("norm", "l2"), ("restarts", 5), ("kind", "apgd_t")])
def test_whatever_else_differs_parts_families(name: str, value: object) -> None:
    assert over_radii([attacked(0.3, 2.0), attacked(0.1, 4.0, {**APGD, name: value})], STAGES) == []


def test_attacks_of_one_name_are_told_apart_by_what_differs() -> None:
    rows = [attacked(0.1, eps, {**APGD, "steps": steps}) for eps in (1.0, 2.0) for steps in (20, 100)]
    assert called(rows) == ["APGD-CE, steps 20", "APGD-CE, steps 100"]


def test_steps_make_a_curve_within_one_radius() -> None:
    def pgd(value: float, steps: int, eps: float = 4.0) -> Row:
        return attacked(value, eps, {**found_runs.PGD, "steps": steps, "step_255": 2.5 * eps / steps})

    rows = [
        clean(),
        pgd(0.30, 100),
        pgd(0.32, 20),
        pgd(0.4, 10),
        pgd(0.1, 20, 8.0),
        pgd(0.5, 10, 2.0),
        pgd(0.4, 20, 2.0),
    ]
    small, large = over_steps(rows, STAGES)
    assert (drawn(small), drawn(large)) == ([(10, 0.5), (20, 0.4)], [(10, 0.4), (20, 0.32), (100, 0.3)])
    assert (labels([small, large]), large.panel) == (["PGD", "PGD"], "L-inf 4/255")
    drawing = curves.accuracy_by_steps(rows)
    assert drawing is not None
    assert [(axes.get_title("left"), axes.get_xscale()) for axes in drawing.axes] == [
        ("L-inf 2/255", "log"),
        ("L-inf 4/255", "log"),
    ]


def test_nothing_varied_draws_nothing() -> None:
    rows = [clean(), attacked(0.3, 4.0), attacked(0.2, 4.0, STANDARD)]
    assert curves.accuracy_by_radius(rows) is None
    assert curves.accuracy_by_steps(rows) is None


def test_six_attacks_and_two_stages_are_twelve_lines_that_all_look_different() -> None:
    settings = [{**APGD, "loss": loss} for loss in ("ce", "dlr", "margin")]
    settings += [STANDARD, found_runs.PGD, {**found_runs.PGD, "steps": 100}]
    rows = [attacked(0.2, eps, each, stage=stage) for stage in STAGES for eps in (1.0, 2.0) for each in settings]
    drawing = curves.accuracy_by_radius(rows)
    assert drawing is not None
    lines = drawing.axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(lines) == 12
    told = [text.get_text() for text in drawing.legends[0].get_texts()]
    assert told == ["APGD-CE", "APGD-DLR", "APGD-MARGIN", "AutoAttack", "PGD-20", "PGD-100", "before", "after"]
    bands = [patch for patch in drawing.axes[0].collections if patch.get_paths()]
    assert len(bands) == 12
