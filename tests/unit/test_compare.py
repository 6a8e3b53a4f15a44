"""Methods side by side: figures as by hand, like compared with like, nothing left out in silence."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import found_runs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import UserError
from experiments.analysis.comparison import Comparison, Difference, Spread
from experiments.analysis.finding import figures
from experiments.analysis.interval import bootstrap
from experiments.analysis.row import Row
from experiments.analysis.sweeps import compare_sweeps
from experiments.analysis.tabular import to_csv, to_latex, to_markdown, write
from experiments.sweep.ledger import Ledger
from experiments.sweep.plan import Plan
from experiments.sweep.trial import Trial

CLEAN = {"tecoa": {0: 0.80, 1: 0.82, 2: 0.84}, "fare": {0: 0.83, 1: 0.84, 2: 0.88}}
ROBUST = {"tecoa": {0: 0.30, 1: 0.34, 2: 0.32}, "fare": {0: 0.31, 1: 0.30, 2: 0.31}}


def rows(clean: float, robust: float, seed: int, attack: Mapping[str, Any] = found_runs.PGD) -> list[dict[str, Any]]:
    """Two levels, clean and attacked, of one trial; and what it started from."""
    at = {"seed": seed, "stage": "after"}
    attacked = {"attack": dict(attack), "attack_name": "pgd20", "n": 50, **at}
    return [
        found_runs.row(0.99, seed=seed, stage="before"),
        found_runs.row(clean, **at),
        found_runs.row(clean + 0.1, level=1, tree="unicode", **at),
        found_runs.row(robust, **attacked),
        found_runs.row(robust + 0.2, level=1, tree="unicode", **attacked),
        found_runs.row(0.5, attack={**attack, "eps_255": 1.0}, attack_name="sweep", **at),
        found_runs.row(0.7, metric="auroc", score="mcm", split="near", level=None, **at),
    ]


def swept(tmp_path: Path, name: str = "sweep", **plan: Any) -> tuple[Ledger, list[Trial]]:
    """The folder of a sweep whose trials measured CLEAN and ROBUST."""
    ledger = Ledger(tmp_path / name)
    trials = []
    for method, values in CLEAN.items():
        for seed, clean in values.items():
            folder = tmp_path / "runs" / f"{method}-s{seed}"
            trial = Trial(f"{method}{seed}", {"experiment": method, "seed": seed}, (), f"hash-{method}", seed, folder)
            found_runs.write(folder, rows(clean, ROBUST[method][seed], seed))
            ledger.record(trial, "finished")
            trials.append(trial)
    given = {"metric": None, "baseline": {}, "columns": (), "command": "sweep me", **plan}
    Plan(name=name, trials=tuple(trials), **given).write(ledger.folder)
    return ledger, trials


def test_means_deviations_and_pairs_are_those_by_hand(tmp_path: Path) -> None:
    ledger, _ = swept(tmp_path)
    found = compare_sweeps([ledger.folder])
    assert (found.methods, found.baseline) == (("tecoa", "fare"), "tecoa")
    assert found.columns == (
        "accuracy/clean/leaf", "accuracy/clean/unicode-1", "accuracy/pgd20/leaf", "accuracy/pgd20/unicode-1",
        "auroc/mcm/near", "accuracy/clean/levels", "accuracy/pgd20/levels",
    )  # fmt: skip
    for method in found.methods:
        spread = found.spread(method, "accuracy/pgd20/leaf")
        values = list(ROBUST[method].values())
        assert spread is not None
        assert (spread.mean, spread.deviation) == (pytest.approx(mean(values)), pytest.approx(stdev(values)))
        assert spread.seeds == (0, 1, 2)
        levels = found.spread(method, "accuracy/clean/levels")
        assert levels is not None
        assert levels.mean == pytest.approx(mean(CLEAN[method].values()) + 0.05)
    change = found.difference("fare", "accuracy/pgd20/leaf")
    assert change is not None
    assert change.spread.mean == pytest.approx((0.01 - 0.04 - 0.01) / 3)
    assert change.agreeing == 2
    assert found.difference("tecoa", "accuracy/pgd20/leaf") is None
    assert not found.exclusions
    assert not found.doubts


def test_the_interval_of_a_difference_is_of_the_pairs_and_not_of_two_means() -> None:
    """Seeds that are good for both methods say nothing about either."""
    good = dict(enumerate((0.1, 0.5, 0.9, 0.3, 0.7)))
    better = {seed: value + 0.01 for seed, value in good.items()}
    change = Difference.of(better, good)
    assert change is not None
    assert change.spread.interval == (pytest.approx(0.01), pytest.approx(0.01))
    assert change.agreeing == 5
    alone = Spread.of(better).interval
    assert alone is not None
    assert alone[1] - alone[0] > 0.3


def test_pairs_are_the_seeds_that_both_have() -> None:
    change = Difference.of({0: 0.5, 1: 0.6, 7: 0.1}, {1: 0.5, 0: 0.7, 9: 0.9})
    assert change is not None
    assert change.spread.seeds == (0, 1)
    assert change.spread.mean == pytest.approx(-0.05)
    assert Difference.of({0: 0.5}, {1: 0.5}) is None


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.floats(-1, 1), st.floats(0.125, 8))
def test_the_bootstrap_is_within_the_values_and_moves_and_scales_with_them(
    values: list[float], shift: float, scale: float
) -> None:
    low, high = bootstrap(values) or (0.0, 0.0)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12
    moved = bootstrap([scale * value + shift for value in values])
    assert moved == (pytest.approx(scale * low + shift, abs=1e-9), pytest.approx(scale * high + shift, abs=1e-9))


def test_the_bootstrap_is_the_normal_interval_of_many_values() -> None:
    values = np.random.default_rng(3).normal(2, 1, 400)
    low, high = bootstrap(values.tolist()) or (0.0, 0.0)
    half = 1.96 * values.std() / 20
    assert (low, high) == (pytest.approx(values.mean() - half, abs=0.01), pytest.approx(values.mean() + half, abs=0.01))


def test_outputs_may_move_and_be_read_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, _ = swept(tmp_path / "here")
    before = compare_sweeps([ledger.folder])
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there" / "runs")
    assert compare_sweeps([Path("../sweep")]) == before


def test_a_single_seed_has_no_spread() -> None:
    assert Spread.of({4: 0.5}) == Spread((4,), 0.5, None, None)
    assert bootstrap([0.5]) is None


def test_the_mean_over_levels_is_of_each_attack_alone() -> None:
    parsed = [Row.parse(row) for row in rows(0.8, 0.3, 0) if row["stage"] == "after"]
    found = {figure.name: figure.value for figure in figures(parsed)}
    assert found["accuracy/clean/levels"] == pytest.approx((0.8 + 0.9) / 2)
    assert found["accuracy/pgd20/levels"] == pytest.approx((0.3 + 0.5) / 2)
    leaves = [row for row in parsed if row.level == 0]
    assert not [figure for figure in figures(leaves) if "levels" in figure.name]


def test_figures_under_another_attack_are_left_out_and_told(tmp_path: Path) -> None:
    ledger, trials = swept(tmp_path)
    weaker = {**found_runs.PGD, "eps_255": 1.0}
    found_runs.write(trials[4].folder, rows(0.84, 0.99, 1, weaker))
    found = compare_sweeps([ledger.folder])
    spread = found.spread("fare", "accuracy/pgd20/leaf")
    assert spread is not None
    assert spread.seeds == (0, 2)
    assert spread.mean == pytest.approx(mean([0.31, 0.31]))
    (told,) = (line for line in found.exclusions if "accuracy/pgd20/leaf" in line)
    assert told == "fare, seed 1, accuracy/pgd20/leaf: measured with eps_255 1.0, not 4.0 as most"
    elsewhere = compare_sweeps([ledger.folder], ["accuracy/clean/leaf"])
    assert not [line for line in elsewhere.exclusions if "pgd20" in line]  # a figure that nobody looks at


def test_trials_that_did_not_finish_are_told(tmp_path: Path) -> None:
    ledger, trials = swept(tmp_path)
    ledger.record(trials[0], "failed", message="the loss is nan")
    late = Trial("late", {"experiment": "tecoa", "seed": 9}, (), "hash-tecoa", 9, tmp_path / "runs" / "late")
    Plan("sweep", "sweep me", None, {}, (), (*trials, late)).write(ledger.folder)
    found = compare_sweeps([ledger.folder])
    assert [line for line in found.exclusions if line.startswith("tecoa, seed 0")] == [
        f"tecoa, seed 0: failed (log: {ledger.log(trials[0])})"
    ]
    assert "tecoa, seed 9: not started" in found.exclusions
    spread = found.spread("tecoa", "accuracy/clean/leaf")
    assert spread is not None
    assert spread.seeds == (1, 2)


def test_patterns_choose_and_order_the_columns_and_the_metric_leads(tmp_path: Path) -> None:
    metric = ("accuracy/pgd20/levels", "maximize")
    ledger, _ = swept(tmp_path, metric=metric, columns=("auroc/*", "accuracy/*/leaf", "accuracy/aa/leaf"))
    found = compare_sweeps([ledger.folder])
    assert found.columns == (
        "accuracy/pgd20/levels", "auroc/mcm/near", "accuracy/clean/leaf", "accuracy/pgd20/leaf",
    )  # fmt: skip
    assert found.exclusions == ["accuracy/aa/leaf: measured by no run"]
    assert compare_sweeps([ledger.folder], ["auroc/*"]).columns == ("accuracy/pgd20/levels", "auroc/mcm/near")


def test_the_baseline_is_the_plans_or_the_one_asked_for(tmp_path: Path) -> None:
    ledger, _ = swept(tmp_path, baseline={"experiment": "fare"})
    assert compare_sweeps([ledger.folder]).baseline == "fare"
    assert compare_sweeps([ledger.folder], baseline={"experiment": "tecoa"}).baseline == "tecoa"
    with pytest.raises(UserError, match="fits 0 of the methods tecoa; fare"):
        compare_sweeps([ledger.folder], baseline={"experiment": "none"})
    with pytest.raises(UserError, match="fits 2 of the methods"):
        compare_sweeps([ledger.folder], baseline={"seed": 1})
    pinned, _ = swept(tmp_path, "pinned", baseline={"experiment": "hita"})
    assert compare_sweeps([pinned.folder]).baseline == "tecoa"


def test_several_sweeps_are_one_table_and_no_run_counts_twice(tmp_path: Path) -> None:
    one, trials = swept(tmp_path, "one")
    two = Ledger(tmp_path / "two")
    other = Trial("h", {"experiment": "hita", "seed": 0}, (), "hash-hita", 0, tmp_path / "runs" / "hita")
    again = Trial("again", {"experiment": "fare", "seed": 0}, (), "new-hash", 0, tmp_path / "runs" / "again")
    for trial, clean in ((other, 0.9), (again, 0.1)):
        found_runs.write(trial.folder, rows(clean, 0.4, 0))
        two.record(trial, "finished")
    Plan("two", "sweep more", None, {}, (), (trials[3], other, again)).write(two.folder)
    found = compare_sweeps([one.folder, two.folder])
    assert found.methods == ("tecoa", "fare", "hita")
    spread = found.spread("fare", "accuracy/clean/leaf")
    assert spread is not None
    assert spread.mean == pytest.approx(mean(CLEAN["fare"].values()))
    assert [line for line in found.exclusions if "another run of that method and seed counts" in line]
    assert {"command: sweep me", "command: sweep more"} <= set(found.provenance)


def test_suspect_figures_are_told_with_their_seeds(tmp_path: Path) -> None:
    ledger, trials = swept(tmp_path)
    for trial in trials[:2]:
        path = trial.folder / "results.jsonl"
        found = [json.loads(line) for line in path.read_text().splitlines()]
        for row in found:
            if row["attack_name"] == "pgd20" and row["level"] == 0:
                row["checks"] = {"suspect": ["the gradient is zero"]}
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
    doubts = compare_sweeps([ledger.folder]).doubts
    assert "tecoa, accuracy/pgd20/leaf, seed 0, 1: the gradient is zero" in doubts


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"trials": 3}', "no json"])
def test_a_folder_that_is_no_sweeps_is_one_sentence(tmp_path: Path, damage: str) -> None:
    with pytest.raises(UserError, match="name the folder of a sweep"):
        compare_sweeps([tmp_path])
    (tmp_path / "plan.json").write_text(damage)
    with pytest.raises(UserError, match="start the sweep again"):
        compare_sweeps([tmp_path])


def test_a_sweep_of_which_nothing_is_finished_is_one_sentence(tmp_path: Path) -> None:
    trial = Trial("t", {"experiment": "debug", "seed": 0}, (), "hash", 0, tmp_path / "run")
    Plan("s", "c", None, {}, (), (trial,)).write(tmp_path)
    with pytest.raises(UserError, match=r"no trial of .* has finished"):
        compare_sweeps([tmp_path])


def test_the_three_files_hold_the_same_figures(tmp_path: Path) -> None:
    ledger, _ = swept(tmp_path, columns=("accuracy/*/leaf",))
    found = compare_sweeps([ledger.folder])
    assert write(found, ledger.folder) == (ledger.folder / "sweep.md").read_text()
    markdown, latex = to_markdown(found), to_latex(found)
    for text in (markdown, latex):
        assert "31.7" not in text.split("fare")[0]
        for figure in ("82.0", "85.0", "32.0", "30.7", "-1.3", "+3.0"):
            assert figure in text
    assert "n = 200" in markdown
    assert "n = 50" in markdown
    assert "PGD-20, L-inf 4/255" in markdown
    assert "hash-tecoa" in markdown
    assert "seeds: 0, 1, 2; runs: 6" in markdown
    assert "code: 0123abcd" in markdown
    assert "command: sweep me" in markdown
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    assert [len(line) for line in tables[:4]] == [len(tables[0])] * 4
    table = list(csv.DictReader(io.StringIO((ledger.folder / "sweep.csv").read_text())))
    assert [(line["method"], line["figure"]) for line in table] == [
        (method, f"accuracy/{attack}/leaf") for method in ("tecoa", "fare") for attack in ("clean", "pgd20")
    ]
    assert float(table[3]["mean"]) == pytest.approx(mean(ROBUST["fare"].values()))
    assert (table[3]["baseline"], table[3]["pairs"], table[3]["agreeing"]) == ("tecoa", "3", "2")
    assert float(table[3]["difference"]) == pytest.approx(-0.04 / 3)
    assert table[0]["difference"] == ""


def test_what_was_not_measured_is_a_dash_and_latex_is_escaped() -> None:
    table = {"accuracy/clean/leaf": {"a_b": {0: 0.5}}, "distance/clean": {"a_b": {0: 1.25, 1: 1.5}, "c": {0: 2.0}}}
    found = Comparison("50 %", "a_b", table)
    line = next(line for line in to_markdown(found).splitlines() if line.startswith("| c "))
    assert line.split("|")[2].strip() == "-"
    assert "1.375 ± 0.1768" in to_markdown(found)
    latex = to_latex(found)
    assert r"a\_b" in latex
    assert "a_b" not in latex.replace(r"a\_b", "").partition(r"\begin")[2]
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    assert len(to_csv(found).splitlines()) == 4
