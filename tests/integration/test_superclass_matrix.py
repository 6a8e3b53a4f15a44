"""The superclass matrix of a run: beside the other figures, equal to them where both know, and out of their tables."""

import re
from pathlib import Path
from typing import Any

import pytest

from experiments.analysis import compare, load_rows, matrices
from experiments.analysis.headline import headline
from experiments.cli import main
from experiments.report import write_report
from tests.folders import packed
from tests.integration.measured import Rows, evaluate, experiment, figures, fit, read

ATTACKS: dict[str, dict[str, Any]] = {
    "pgd": {"kind": "pgd", "eps_255": 4, "step_255": 1, "steps": 4, "loss": "ce"},
    "listed": {
        "kind": "auto_attack", "version": "custom", "attacks": ["apgd-ce", "apgd-t"],
        "steps": 4, "targets": 2, "eps_255": 3,
    },
}  # fmt: skip
PLAIN = {"attacks": ATTACKS, "samples": 13}
MATRIX = PLAIN | {"superclass": {"attacks": ATTACKS, "samples": 13}}


@pytest.fixture(scope="module")
def model(tiny_vit: str, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return fit(tiny_vit, tiny_dataset, tmp_path_factory.mktemp("fitted") / "model")


@pytest.fixture(scope="module")
def path(model: str, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment that was measured, with the matrix."""
    path = experiment(tmp_path_factory.mktemp("matrix") / "tiny.yaml", model, tiny_dataset, MATRIX)
    evaluate(path)
    return path


@pytest.fixture(scope="module")
def rows(path: Path) -> Rows:
    return read(path)


def value(rows: Rows, **wanted: object) -> float:
    (row,) = [row for row in rows if all(row[name] == expected for name, expected in wanted.items())]
    return float(row["value"])


def run(path: Path) -> Path:
    """Folder of the only run beside an experiment."""
    (results,) = (path.parent / "outputs").glob("*/*/results.jsonl")
    return results.parent


@pytest.mark.parametrize("name", list(ATTACKS))
def test_the_leaf_under_attack_on_the_leaf_is_the_evaluations_own_figure(rows: Rows, name: str) -> None:
    """Of the same samples, by the same seeds, though there by ledger and stream and here by level."""
    own = value(rows, attack_name=name, level=0, metric="accuracy")
    for metric in ("accuracy", "level_accuracy"):
        assert value(rows, attack_name=f"{name}>leaf", metric=metric, level=0) == pytest.approx(own)
    assert 0 < own < 1


def test_clean_figures_are_the_evaluations_own(rows: Rows) -> None:
    for level in (0, 1):
        own = value(rows, attack_name=None, attack=None, level=level)
        assert value(rows, attack_name="superclass", level=level, metric="accuracy") == pytest.approx(own)


def test_a_level_of_one_class_is_no_level(rows: Rows) -> None:
    """The tree's root; only figures of the evaluation itself are of it."""
    assert {row["level"] for row in rows if row["attack_name"] in ("pgd>leaf", "superclass")} == {0, 1, None}


def test_the_other_figures_and_what_is_said_of_them_are_as_without_the_matrix(
    path: Path, rows: Rows, model: str, tiny_dataset: Path, tmp_path: Path
) -> None:
    without = experiment(tmp_path / "tiny.yaml", model, tiny_dataset, PLAIN)
    plain = figures(evaluate(without))
    kept = [row for row in figures(rows) if ">" not in f"{row['attack_name']}" and row["attack_name"] != "superclass"]
    assert kept == plain
    mine, others = load_rows(run(path)), load_rows(run(without))
    assert compare(mine) == compare(others)
    assert headline(mine) == headline(others)
    assert [row for row in mine if not row.superclass] != mine
    write_report(run(without))
    write_report(run(path))
    pages = [(run(each) / "report.html").read_text() for each in (path, without)]
    assert ["<h2>Superclasses</h2>" in page for page in pages] == [True, False]
    results = [re.search("<section><h2>Results.*?</section>", page, re.DOTALL) for page in pages]
    assert results[0] is not None
    assert results[1] is not None
    assert results[0].group() == results[1].group()


def test_the_matrix_is_read_back_from_the_rows(path: Path, rows: Rows) -> None:
    found = {matrix.attack: matrix for matrix in matrices(load_rows(run(path)))}
    assert len(found) == len(ATTACKS)
    matrix = found["PGD-4, L-inf 4/255"]
    assert matrix.aims == ("clean", "leaf", "colours 1")
    assert matrix.levels == ("leaf", "colours 1")
    for across, (tree, level) in enumerate([(None, 0), ("colours", 1)]):
        for down, name in enumerate(("superclass", "pgd>leaf", "pgd>colours.1")):
            told = value(rows, metric="level_accuracy", attack_name=name, tree=tree, level=level)
            assert matrix.accuracy[down, across] == told
    lines = matrix.table().splitlines()
    assert lines[1].split()[1:] == [f"{100 * share:.1f}" for share in matrix.accuracy[0]]


def test_it_is_not_measured_twice(path: Path, rows: Rows, capfd: pytest.CaptureFixture[str]) -> None:
    assert figures(evaluate(path)) == figures(rows)
    assert "superclasses, before" not in capfd.readouterr().err


def test_the_plan_tells_what_it_costs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(path), "--dry-run"]) == 0
    told = capsys.readouterr().out
    (line,) = (line for line in told.splitlines() if "at most 5 forward, 4 backward" in line)
    assert line.startswith("superclasses under")
    assert line.endswith("a sample and level of the hierarchy")


def test_data_without_a_hierarchy_is_refused_before_anything_is_measured(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(tmp_path / "zoo", {"train": 4, "val": 3, "test": 5})
    path = experiment(tmp_path / "tiny.yaml", model, tmp_path / "zoo", MATRIX)
    assert main(["evaluate", str(path)]) == 2
    told = capsys.readouterr().err
    assert "hierarchy.trees.NAME.kind" in told
    assert "measuring before" not in told
