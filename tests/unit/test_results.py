"""results.jsonl and metrics.csv."""

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import provenance, results
from experiments.metrics_file import MetricsFile

ROW = {
    "metric": "accuracy", "value": 0.5, "n": 10, "dataset": "shapes", "split": "test", "level": 0, "tree": None,
    "attack": None, "attack_name": None, "score": None, "stage": "before", "seed": 0, "checks": {},
}  # fmt: skip


def test_measuring_again_replaces_and_other_questions_stay(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    results.append(path, [ROW, ROW | {"stage": "after"}], {"config_hash": "a"})
    results.append(path, [ROW | {"value": 0.75}], {"config_hash": "b"})
    rows = results.read(path)
    assert [(row["stage"], row["value"], row["config_hash"]) for row in rows] == [
        ("after", 0.5, "a"),
        ("before", 0.75, "b"),
    ]


@pytest.mark.parametrize("changed", [{"attack": {"kind": "pgd", "eps_255": 4.0}}, {"level": 1}, {"seed": 1}])
def test_rows_that_differ_in_their_question_are_kept_apart(tmp_path: Path, changed: dict[str, object]) -> None:
    path = tmp_path / "results.jsonl"
    results.append(path, [ROW], {})
    results.append(path, [ROW | changed], {})
    assert len(results.read(path)) == 2


def test_incomplete_and_non_finite_rows_are_refused_and_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    results.append(path, [ROW], {})
    before = path.read_bytes()
    with pytest.raises(KeyError, match="checks"):
        results.append(path, [{name: value for name, value in ROW.items() if name != "checks"}], {})
    with pytest.raises(ValueError, match="JSON"):
        results.append(path, [ROW | {"value": float("nan")}], {})
    assert path.read_bytes() == before


def test_provenance_names_code_data_and_hardware() -> None:
    found = provenance.collect("0123abcd", "digest", 1.23456)
    assert (found["config_hash"], found["manifest_digest"], found["seconds"]) == ("0123abcd", "digest", 1.235)
    assert {"torch", "lightning", "open_clip_torch", "python"} <= set(found["versions"])
    assert found["device"]


names = st.sampled_from(["train/loss", "train/lr", "val/accuracy", 'odd, "name"'])
values = st.dictionaries(names, st.floats(allow_nan=False, width=32), max_size=3)
actions = st.one_of(
    st.tuples(st.just("log"), st.integers(0, 2), values),
    st.tuples(st.just("resume"), st.integers(0, 12), st.booleans()),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(actions, max_size=25))
def test_metrics_file_holds_each_step_once_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[tuple[str, int, object]]
) -> None:
    """Against a dictionary of rows: steps rise or repeat, columns come and go, processes die in the middle of a row."""
    path = tmp_path_factory.mktemp("metrics") / "metrics.csv"
    expected: dict[int, dict[str, float]] = {}
    file, step = MetricsFile(path), 0
    for action, number, extra in sequence:
        if action == "log":
            assert isinstance(extra, dict)
            step += number
            file.log(extra, step)
            expected.setdefault(step, {}).update(extra)
        else:
            if extra and path.exists():  # killed while it appended
                path.write_text(path.read_text() + "99,0.")
            step = min(step, number)
            expected = {known: row for known, row in expected.items() if known <= step}
            file = MetricsFile(path)
            file.forget(step)
    assert read(path) == {
        known: {name: f"{value:.9g}" for name, value in row.items()} for known, row in expected.items()
    }


def read(path: Path) -> dict[int, dict[str, str]]:
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["step"] for row in rows}) == len(rows)
    return {int(row["step"]): {name: value for name, value in row.items() if name != "step" and value} for row in rows}
