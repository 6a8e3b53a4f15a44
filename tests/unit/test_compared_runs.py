"""Methods of runs side by side: what a sweep's own comparison says, from the runs alone."""

from pathlib import Path

import made_runs
import pytest

from configs.errors import UserError
from experiments.analysis import compare_sweeps, compared, load_runs, methods
from experiments.sweep.ledger import Ledger
from experiments.sweep.plan import Plan
from experiments.sweep.trial import Trial

CLEAN = {"tecoa_openmoji": (0.80, 0.82, 0.84), "fare_openmoji": (0.83, 0.84, 0.88)}
ROBUST = {"tecoa_openmoji": (0.30, 0.34, 0.32), "fare_openmoji": (0.31, 0.30, 0.31)}


def swept(output: Path) -> Path:
    """Three seeds of two experiments; the sweep's folder."""
    ledger, trials = Ledger(output / "sweeps" / "two"), []
    for experiment, values in CLEAN.items():
        for seed, clean in enumerate(values):
            made_runs.run(output, clean, ROBUST[experiment][seed], experiment, seed=seed)
            composed = made_runs.configured(output, experiment, seed=seed)
            trials.append(Trial.of(composed, {"experiment": experiment, "seed": seed}))
            ledger.record(trials[-1], "finished")
    Plan("two", "sweep two", None, {}, (), tuple(trials)).write(ledger.folder)
    return ledger.folder


def test_runs_say_what_their_sweep_says(tmp_path: Path) -> None:
    sweep, baseline = swept(tmp_path), {"experiment": "tecoa_openmoji"}
    metrics = ["accuracy/*/leaf", "accuracy/*/levels", "auroc/*"]
    expected = compare_sweeps([sweep], metrics, baseline)
    found = compared(load_runs(tmp_path), metrics=metrics, baseline=baseline)
    assert found.table == expected.table
    assert found.baseline == expected.baseline
    for method in found.methods:
        for column in found.columns:
            assert found.spread(method, column) == expected.spread(method, column)
            assert found.difference(method, column) == expected.difference(method, column)
    told = {line.partition(":")[0] for line in set(expected.provenance) - set(found.provenance)}
    assert told == {"command", "configurations"}  # the latter are the same in another order
    change = found.difference("fare_openmoji", "accuracy/pgd20/leaf")
    assert change is not None
    assert (change.spread.mean, change.agreeing) == (pytest.approx((0.01 - 0.04 - 0.01) / 3), 2)


def test_means_are_those_of_the_comparison(tmp_path: Path) -> None:
    swept(tmp_path)
    found = compared(load_runs(tmp_path), metrics=["*"])
    for method in found.methods:
        for column in found.columns:
            spread = found.spread(method, column)
            assert spread is not None
            assert found.means.loc[method, column] == pytest.approx(spread.mean)


def test_methods_are_told_apart_by_what_is_asked_for(tmp_path: Path) -> None:
    for eps in ("1", "4"):
        for seed in (0, 1):
            made_runs.run(tmp_path, 0.8, 0.3, "tecoa_openmoji", f"attack.eps_255={eps}", seed=seed)
    runs = load_runs(tmp_path)
    assert set(methods(runs).values()) == {"attack.eps_255=1", "attack.eps_255=4"}
    assert set(methods(runs, ["experiment"]).values()) == {"tecoa_openmoji"}
    both = compared(runs, by=["attack.eps_255", "optim.lr"], baseline={"attack.eps_255": 4})
    assert both.baseline.startswith("attack.eps_255=4, optim.lr=")
    together = compared(runs, by=["experiment"])
    assert len([line for line in together.exclusions if "another run of that method and seed counts" in line]) == 2


def test_what_can_not_be_compared_is_one_sentence(tmp_path: Path) -> None:
    swept(tmp_path)
    runs = load_runs(tmp_path)
    with pytest.raises(UserError, match=r"no run has the key 'attack.eps'; did you mean 'attack.eps_255'"):
        compared(runs, by=["attack.eps"])
    with pytest.raises(UserError, match="fits 0 of the methods"):
        compared(runs, baseline={"experiment": "quickstart"})
    with pytest.raises(UserError, match="fits 2 of the methods"):
        compared(runs, baseline={})
    with pytest.raises(UserError, match="no run has measured anything before training"):
        compared(runs, stage="before")


def test_what_is_left_out_of_the_runs_is_left_out_aloud(tmp_path: Path) -> None:
    swept(tmp_path)
    made_runs.write(made_runs.configured(tmp_path, seed=7), made_runs.rows(0.9, 0.1, 7, "before"))
    made_runs.write(made_runs.configured(tmp_path, seed=8), [], {"state": "failed", "message": "no space"})
    told = "\n".join(compared(load_runs(tmp_path), metrics=["accuracy/aa/leaf"]).exclusions)
    assert "s7: has measured nothing after training" in told
    assert "s8: failed at step 20 of 20 (no space)" in told
    assert "accuracy/aa/leaf: measured by no run" in told
