"""Sweeps through the command line: trials in processes of their own, of which one breaks, and one is killed."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.compose import compose
from experiments.cli import main
from experiments.runs import Run
from experiments.sweep.ledger import Event, Ledger
from tests.integration.runs import logged, saved_step
from tests.integration.test_resume import TRAINER, wait_until

Experiment = Callable[..., Path]
EVALUATION = {
    "batch_size": 8,
    "attacked_samples": 8,
    "attacks": {"pgd": {"kind": "pgd", "eps_255": 4.0, "step_255": 1.0, "steps": 2, "loss": "ce"}},
    "checks": False,
}

pytestmark = pytest.mark.slow


def sweep_file(tmp_path: Path, **content: Any) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"method": "grid", **content}))
    return path


def rows(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.results.read_text().splitlines()]


def test_a_sweep_that_is_killed_goes_on_where_it_stood_and_without_its_broken_trial(
    experiment_file: Experiment, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    steps = 150
    sections = {"trainer": TRAINER | {"steps": steps, "checkpoint_every": 20}, "evaluation": EVALUATION}
    sound = experiment_file("sound", **sections)
    broken = experiment_file("broken", **sections, optim={"lr": 1e30})
    sweep = sweep_file(
        tmp_path,
        metric={"name": "accuracy/pgd/leaf", "goal": "maximize"},
        parameters={"experiment": {"values": [str(broken), str(sound)]}, "seed": {"value": 1}},
        compare={"baseline": {"experiment": str(sound)}, "metrics": ["accuracy/*/levels"]},
    )
    run, ledger = Run.of(compose(sound, ["seed=1"])), Ledger(tmp_path / "outputs" / "sweeps" / "mine")
    command = [sys.executable, "-m", "experiments", "sweep", str(sweep), "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_until(lambda: run.checkpoint.exists(), process)
    process.kill()
    process.wait()
    assert saved_step(run) < steps

    assert main(["sweep", str(sweep), "--jobs", "2"]) == 1
    out, told = capfd.readouterr()
    failed, finished = (_last(ledger, state) for state in ("failed", "finished"))
    assert "broken, seed 1: FAILED" in told
    assert f"1 of 2 trials failed; read {failed.log}" in told
    assert "the loss of step" in Path(failed.log).read_text()
    commands = [line.split()[4] for line in Path(finished.log).read_text().splitlines() if line.startswith("$ ")]
    assert commands == ["train", "train", "evaluate"]
    assert [event.state for event in ledger.events() if event.trial == finished.trial] == ["running"] * 2 + ["finished"]
    assert sorted(logged(run)) == list(range(1, steps + 1))
    assert {(row["stage"], row["attack_name"]) for row in rows(run)} == {("after", None), ("after", "pgd")}
    table = (ledger.folder / "sweep.md").read_text()
    assert out.strip().endswith(table.strip())
    assert "| sound " in table
    assert "| accuracy/pgd/leaf " in table.splitlines()[2]
    assert "broken, seed 1: failed" in table
    assert "n = 8" in table
    assert len((ledger.folder / "sweep.csv").read_text().splitlines()) == 1 + 3
    assert r"\toprule" in (ledger.folder / "sweep.tex").read_text()


def _last(ledger: Ledger, state: str) -> Event:
    """Of the only trial that is now in this state."""
    (found,) = (event for event in ledger.last().values() if event.state == state)
    return found
