"""Sweeps through the command line: trials in processes of their own, of which one breaks, and one is killed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.compose import compose
from experiments.cli import main
from experiments.runs import Run
from experiments.sweep.ledger import Ledger
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


def test_a_sweep_goes_on_without_the_broken_trial_and_does_it_alone_once_it_is_mended(
    experiment_file: Experiment, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trainer = TRAINER | {"steps": 3}
    sound = experiment_file("sound", trainer=trainer, evaluation=EVALUATION)
    broken = experiment_file("broken", trainer=trainer, evaluation=EVALUATION, optim={"lr": 1e30})
    sweep = sweep_file(
        tmp_path,
        metric={"name": "accuracy/pgd/leaf", "goal": "maximize"},
        parameters={"experiment": {"values": [str(broken), str(sound)]}, "seed": {"value": 1}},
        compare={"baseline": {"experiment": str(sound)}, "metrics": ["accuracy/*/levels"]},
    )
    assert main(["sweep", str(sweep), "--jobs", "2"]) == 1
    out, told = capfd.readouterr()
    folder = tmp_path / "outputs" / "sweeps" / "mine"
    log = folder / "logs" / f"{_identity(folder, 'failed')}.log"
    assert "broken, seed 1: FAILED" in told
    assert f"1 of 2 trials failed; read {log}" in told
    assert "the loss of step" in log.read_text()
    run = Run.of(compose(sound, ["seed=1"]))
    assert {(row["stage"], row["attack_name"]) for row in rows(run)} == {("after", None), ("after", "pgd")}
    assert "| sound " in out
    assert "broken, seed 1: failed" in out

    experiment_file("broken", trainer=trainer, evaluation=EVALUATION, optim={"lr": 0.01, "warmup_steps": 1})
    before = run.results.stat().st_mtime_ns
    assert main(["sweep", str(sweep), "--jobs", "2", "--engine", "local"]) == 0
    out, told = capfd.readouterr()
    assert "1 of 2 trials are finished already" in told
    assert run.results.stat().st_mtime_ns == before
    table = (folder / "sweep.md").read_text()
    assert out.strip().endswith(table.strip())
    assert "| accuracy/pgd/leaf " in table.splitlines()[2]
    assert "less sound, paired by seed" in table
    assert "n = 8" in table
    assert len((folder / "sweep.csv").read_text().splitlines()) == 1 + 2 * 3
    assert r"\toprule" in (folder / "sweep.tex").read_text()


def _identity(folder: Path, state: str) -> str:
    (found,) = (event.trial for event in Ledger(folder).events() if event.state == state)
    return found


def test_a_sweep_that_is_killed_goes_on_where_it_stood(experiment_file: Experiment, tmp_path: Path) -> None:
    steps = 150
    trainer = TRAINER | {"steps": steps, "checkpoint_every": 20}
    experiment = experiment_file(trainer=trainer, evaluation=EVALUATION)
    sweep = sweep_file(tmp_path, program=str(experiment), parameters={"seed": {"values": [5]}})
    run = Run.of(compose(experiment, ["seed=5"]))
    command = [sys.executable, "-m", "experiments", "sweep", str(sweep)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    wait_until(lambda: run.checkpoint.exists(), process)
    process.kill()
    process.wait()
    assert saved_step(run) < steps
    assert main(["sweep", str(sweep)]) == 0
    ledger = Ledger(tmp_path / "outputs" / "sweeps" / "mine")
    (log,) = (ledger.folder / "logs").iterdir()
    commands = [line.split()[4] for line in log.read_text().splitlines() if line.startswith("$ ")]
    assert commands == ["train", "train", "evaluate"]
    assert sorted(logged(run)) == list(range(1, steps + 1))
    assert {row["stage"] for row in rows(run)} == {"after"}
    assert [event.state for event in ledger.events()] == ["running", "running", "finished"]
