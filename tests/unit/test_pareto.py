"""The Pareto front: nothing on it is beaten, everything off it is."""

from pathlib import Path

import made_runs
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import UserError
from experiments.analysis import compared, load_runs, names, pareto, trade_off
from experiments.analysis.comparison import Comparison

CLEAN, ROBUST, ERROR = "accuracy/clean/leaf", "accuracy/apgd/leaf", "fpr95_id_pos/mcm/near"
VALUES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, float("nan")])  # few, so that there are ties


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """As good in both and better in one."""
    return one[0] >= other[0] and one[1] >= other[1] and one != other


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=12))
def test_the_front_is_what_its_definition_says(points: list[tuple[float, float]]) -> None:
    table = pd.DataFrame(points, columns=[CLEAN, ROBUST])
    known = [point for point in points if point == point and point[0] == point[0] and point[1] == point[1]]
    expected = [
        point[0] == point[0] and point[1] == point[1] and not any(beats(other, point) for other in known)
        for point in points
    ]
    assert pareto(table, CLEAN, ROBUST).front.tolist() == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=12))
def test_where_lower_is_better_the_front_is_that_of_the_opposite(points: list[tuple[float, float]]) -> None:
    table = pd.DataFrame(points, columns=[CLEAN, ERROR])
    opposite = pd.DataFrame([(x, -y) for x, y in points], columns=[CLEAN, ROBUST])
    assert pareto(table, CLEAN, ERROR).front.tolist() == pareto(opposite, CLEAN, ROBUST).front.tolist()


def test_equals_are_on_the_front_together() -> None:
    table = pd.DataFrame({CLEAN: [1.0, 1.0, 0.5], ROBUST: [0.5, 0.5, 0.5]}, index=["a", "b", "c"])
    assert pareto(table, CLEAN, ROBUST).front.to_dict() == {"a": True, "b": True, "c": False}


def test_errors_and_distances_are_better_when_low() -> None:
    assert all(map(names.lower_is_better, ["fpr95_ood_pos/mcm/far", "lca_height/clean/unicode", "aurc/mcm/test"]))
    assert not any(map(names.lower_is_better, [CLEAN, "auroc/mcm/near", "consistency/clean/unicode"]))


def test_comparisons_and_tidy_frames_are_tables_too(tmp_path: Path) -> None:
    for seed, clean in enumerate((0.8, 0.84)):
        made_runs.run(tmp_path, clean, 0.3, seed=seed)
        made_runs.run(tmp_path, 0.7, 0.4 + seed / 100, "fare_openmoji", seed=seed)
    runs = load_runs(tmp_path)
    found = pareto(compared(runs), CLEAN, "accuracy/pgd20/leaf")
    assert found.front.tolist() == [True, True]
    assert found.loc["tecoa_openmoji", CLEAN] == pytest.approx(0.82)
    each = pareto(runs.frame, CLEAN, "accuracy/pgd20/leaf").reset_index()
    assert each[each.front].run.str[-3:].tolist() == ["-s1", "-s1"]
    with pytest.raises(UserError, match="there is no figure 'accuracy/pgd2/leaf' here"):
        pareto(runs.frame, CLEAN, "accuracy/pgd2/leaf")


def test_the_plot_shows_every_method_where_it_is_with_its_interval() -> None:
    table = {
        CLEAN: {"a": {0: 0.8, 1: 0.9}, "b": {0: 0.5}, "c": {0: 0.9}},
        ERROR: {"a": {0: 0.2, 1: 0.4}, "b": {0: 0.5}, "d": {0: 0.1}},
    }
    found = Comparison("title", "a", table)
    (axes,) = trade_off(found, CLEAN, ERROR).axes
    handles, labels = axes.get_legend_handles_labels()
    assert labels == ["a", "b"]  # the others lack a figure
    marks = {label: handle.lines[0] for label, handle in zip(labels, handles, strict=True)}
    for method, mark in marks.items():
        for column, (at,) in zip((CLEAN, ERROR), mark.get_data(), strict=True):
            spread = found.spread(method, column)
            assert spread is not None
            assert at == pytest.approx(100 * spread.mean)
    assert marks["a"].get_markerfacecolor() != "white"
    assert marks["b"].get_markerfacecolor() == "white"
    assert "lower is better" in axes.get_ylabel()
    spread = found.spread("a", ERROR)
    assert spread is not None
    assert spread.interval is not None
    (ends,) = [bar.get_segments()[0] for bar in handles[0].lines[2][1:]]
    assert [end[1] for end in ends] == pytest.approx([100 * bound for bound in spread.interval])
