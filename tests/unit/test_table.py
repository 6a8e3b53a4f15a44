"""The side-by-side table: every figure is a row's, every interval solves its equation, nothing is left out."""

import csv
import io
import re

import found_runs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import UserError
from experiments.analysis import Row, compare
from experiments.analysis.interval import wilson
from experiments.analysis.table import FOOT, bounds, lines, points, stages_of, to_csv


def parsed(found: list[dict]) -> list[Row]:
    return [Row.parse(fields) for fields in found]


@given(n=st.integers(1, 5000), share=st.floats(0, 1))
def test_wilson_bounds_are_where_the_share_is_z_standard_errors_away(n: int, share: float) -> None:
    low, high = wilson(share, n)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    for bound in (low, high):
        if 1e-9 < bound < 1 - 1e-9:
            assert abs(share - bound) == pytest.approx(1.959964 * (bound * (1 - bound) / n) ** 0.5, rel=1e-4, abs=1e-9)


def test_a_wilson_interval_at_none_and_all_is_not_a_point() -> None:
    assert wilson(0.0, 100)[0] == 0.0
    assert wilson(0.0, 100)[1] == pytest.approx(1.959964**2 / (100 + 1.959964**2), rel=1e-5)
    assert wilson(1.0, 100)[0] == pytest.approx(1 - wilson(0.0, 100)[1])


def test_every_figure_of_the_table_is_a_rows() -> None:
    rows = parsed(found_runs.rows(seed=3))
    text = compare(rows).partition(f"\n{FOOT}\n")[0].splitlines()
    shown = [row for row in rows if row.attack_name != "sweep" and row.score is None]
    printed = sorted(figure for line in text[1:] if line.startswith("  ") for figure in _figures(line)[:2])
    assert printed == sorted(f"{100 * row.value:.1f}" for row in shown)


def test_the_change_is_after_minus_before_of_the_unrounded_values() -> None:
    rows = parsed([found_runs.row(0.10049), found_runs.row(0.30051, stage="after")])
    (line,) = [line for line in compare(rows).splitlines() if "leaf" in line]
    assert _figures(line) == ["10.0", "30.1", "+20.0"]


def test_a_change_that_rounds_to_nothing_has_no_minus() -> None:
    assert points(-0.0001) == "+0.0"
    assert points(-0.0001, decimals=2) == "-0.01"


def test_sections_come_clean_first_then_attacks_then_open_world() -> None:
    table = lines(parsed(found_runs.rows()), ["before", "after"])
    titles = list(dict.fromkeys(line.section for line in table))
    assert titles[:3] == ["clean", "under PGD-20, L-inf 4/255", "under APGD-CE + APGD-T, L-inf 4/255"]
    assert all(title.startswith("MCM, ") for title in titles[3:])
    assert len(titles) == 3 + len(found_runs.SPLITS)


def test_levels_of_every_tree_follow_the_leaves() -> None:
    clean = [line for line in lines(parsed(found_runs.rows()), ["before"]) if line.section == "clean"]
    assert [(line.first.tree, line.first.level) for line in clean] == found_runs.LEVELS


def test_one_stage_has_no_change_and_other_stages_are_found() -> None:
    alone = compare(parsed(found_runs.rows(stages=("before",))))
    assert "after" not in alone
    assert "change" not in alone.splitlines()[0]
    assert stages_of(parsed(found_runs.rows(stages=("vaccinated",)))) == ["vaccinated"]


def test_the_mean_over_a_group_of_splits_is_called_one() -> None:
    titles = [line.section for line in lines(parsed(found_runs.rows()), ["before"])]
    assert "MCM, near-OOD, mean of splits" in titles
    assert "MCM, far-OOD" in titles


def test_a_figure_that_one_stage_lacks_shows_a_dash() -> None:
    rows = parsed(
        [found_runs.row(0.5), found_runs.row(0.6, stage="after"), found_runs.row(0.7, level=1, tree="unicode")]
    )
    (line,) = [line for line in compare(rows).splitlines() if "unicode" in line]
    assert re.search(r"70\.0 \([\d.-]+\)\s+-\s+200$", line)


CHECKED = {"zero_gradient": 0.01, "black_box": 0.0, "suspect": []}
SUSPECT = {"zero_gradient": 0.7, "black_box": 0.2, "suspect": ["gradients are zero", "9 of 64 fall to Square"]}


def under(attack: dict, value: float = 0.5, **fields: object) -> dict:
    return found_runs.row(value, attack=attack, attack_name=attack["kind"], **fields)


def test_suspect_figures_are_marked_and_the_reasons_are_told_below() -> None:
    rows = parsed(
        [
            found_runs.row(0.8),
            under(found_runs.PGD, 0.6, checks=CHECKED),
            under(found_runs.PGD, 0.9, stage="after", checks=SUSPECT),
            under(found_runs.PGD, 0.95, stage="after", checks=SUSPECT, level=1, tree="unicode"),
        ]
    )
    text = compare(rows).splitlines()
    clean, attacked, above = (line for line in text if line.startswith("  accuracy"))
    assert "suspect" not in clean
    assert re.search(r" 60\.0 \([\d.-]+\)  +90\.0 \([\d.-]+\) suspect  ", attacked)
    assert "suspect" in above
    assert text[-2:] == [
        "  before, all attacks: no sign of a weak attack by zero gradient, Square against gradients",
        "  after, all attacks: suspect: gradients are zero; 9 of 64 fall to Square",
    ]


def test_attacks_of_different_outcome_are_told_apart() -> None:
    rows = parsed([under(found_runs.PGD, checks=SUSPECT), under(found_runs.APGD, checks=CHECKED)])
    first, second = compare(rows).splitlines()[-2:]
    assert first.startswith("  before, PGD-20, L-inf 4/255: suspect: ")
    assert second.startswith("  before, APGD-CE + APGD-T, L-inf 4/255: no sign ")
    assert compare(parsed([under(found_runs.PGD)])).splitlines()[-1] == "  before, all attacks: not checked"


def test_without_attacks_nothing_is_told_of_checks() -> None:
    assert "Checks" not in compare(parsed([found_runs.row(0.5)]))


def test_counts_that_differ_between_stages_are_both_shown() -> None:
    rows = parsed([found_runs.row(0.5, n=1600), found_runs.row(0.5, n=400, stage="after")])
    assert compare(rows).splitlines()[2].endswith("1,600 / 400")


@pytest.mark.parametrize(("field", "one", "other"), [("dataset", "a", "b"), ("seed", 0, 1), ("split", "val", "test")])
def test_rows_that_differ_in_what_a_title_leaves_out_are_told_apart(field: str, one: object, other: object) -> None:
    rows = parsed([found_runs.row(0.2, **{field: one}), found_runs.row(0.8, **{field: other})])
    text = compare(rows)
    assert f"clean, {field} {one}" in text
    assert f"clean, {field} {other}" in text


def test_two_attacks_of_one_title_keep_their_names() -> None:
    margin = {**found_runs.PGD, "loss": "margin"}
    rows = parsed(
        [
            found_runs.row(0.2, attack=found_runs.PGD, attack_name="ce"),
            found_runs.row(0.8, attack=margin, attack_name="dlr"),
        ]
    )
    assert {line.section.rpartition(", ")[2] for line in lines(rows, ["before"])} == {
        "attack_name ce",
        "attack_name dlr",
    }


def test_metrics_that_are_no_shares_are_not_shown_in_percent() -> None:
    rows = parsed(
        [found_runs.row(2.345, metric="tree_distance"), found_runs.row(1.5, metric="tree_distance", stage="after")]
    )
    (line,) = [line for line in compare(rows).splitlines() if "tree_distance" in line]
    assert line.split()[-4:] == ["2.345", "1.5", "-0.845", "200"]


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(UserError, match="no results"):
        compare([])


def test_csv_holds_every_row_with_its_value_exactly() -> None:
    rows = parsed(found_runs.rows())
    table = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [float(line["value"]) for line in table] == [row.value for row in rows]
    assert [line["attack_name"] or None for line in table] == [row.attack_name for row in rows]
    assert all((line["low"] != "") == (line["metric"] == "accuracy") for line in table)


def test_an_interval_is_given_for_accuracies_only() -> None:
    assert bounds(Row.parse(found_runs.row(0.5))) == "43.1-56.9"
    assert bounds(Row.parse(found_runs.row(0.5, metric="auroc", score="mcm"))) == ""


def _figures(line: str) -> list[str]:
    """Percentages of a line without those in brackets, of which there is one decimal; counts have none."""
    return re.findall(r"(?<![\d.])[+-]?\d+\.\d(?!\d)", re.sub(r"\(.*?\)", "", line))
