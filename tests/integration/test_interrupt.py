"""Signals and the wall time: the step is finished and saved, and the same command goes on from it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

from configs.compose import compose
from experiments.evaluate import evaluate
from experiments.runs import Run
from experiments.stop import SIGNALS
from experiments.train import train
from lightning_modules.immunisation import Immunisation
from lightning_modules.ledger import Ledger
from tests.integration.runs import Signal, faulty, logged, same, saved_step, weights
from tests.integration.test_resume import TRAINER, uninterrupted, wait_until

Experiment = Callable[..., Path]


@pytest.mark.parametrize(
    ("number", "code", "step"),
    [(signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 4), (signal.SIGUSR1, 138, 1), (signal.SIGUSR2, 140, 4)],
)
def test_saves_the_step_says_how_to_resume_and_resumes(
    experiment_file: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int, code: int, step: int
) -> None:
    composed, whole = uninterrupted(experiment_file, tmp_path, trainer=TRAINER)
    run = Run.of(composed)
    before = [signal.getsignal(each) for each in SIGNALS]
    with faulty(Signal(step, number), first=True):  # arrives within the step, before anything looks for it
        assert train(composed) == code
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert saved_step(run) == step
    assert run.status is not None
    assert (run.status.state, run.status.step) == ("interrupted", step)
    told = capsys.readouterr().err
    assert f"{signal.Signals(number).name} at step {step}" in told
    assert "start the same command again to resume" in told
    assert train(composed) == 0
    assert logged(run) == logged(whole)
    assert same(weights(run.model), weights(whole.model))


def test_a_signal_within_a_validation_waits_for_its_end_alone(experiment_file: Experiment, tmp_path: Path) -> None:
    trainer = TRAINER | {"validate_every": 2, "checkpoint_every": 5}
    composed, whole = uninterrupted(experiment_file, tmp_path, trainer=trainer)

    class InValidation(Signal):
        def on_validation_batch_start(self, trainer: Trainer, *_: object) -> None:
            if trainer.global_step == self.step:
                self.strike()

        def on_train_batch_end(self, *_: object) -> None:
            pass

    run = Run.of(composed)
    with faulty(InValidation(4, signal.SIGUSR1)):
        assert train(composed) == 138
    assert saved_step(run) == 4
    assert train(composed) == 0
    assert logged(run) == logged(whole)
    assert same(weights(run.model), weights(whole.model))


def test_a_signal_after_the_last_step_is_not_lost(experiment_file: Experiment) -> None:
    """Whatever follows the fit, as a vaccination, may take hours."""

    class AtTheEnd(Signal):
        def on_train_end(self, *_: object) -> None:
            self.strike()

    composed = compose(experiment_file(trainer=TRAINER))
    run = Run.of(composed)
    with faulty(AtTheEnd(-1, signal.SIGTERM)):
        assert train(composed) == 143
    assert run.status is not None
    assert (run.status.state, run.status.step) == ("interrupted", saved_step(run))
    assert not run.model.exists()
    assert train(composed) == 0
    assert run.model.exists()


def test_the_wall_time_ends_a_fit_before_it_is_over(
    experiment_file: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = 4.0
    composed = compose(experiment_file(trainer=TRAINER | {"steps": 100_000, "wall_minutes": seconds / 60}))
    began = time.monotonic()
    assert train(composed) == 128 + signal.SIGALRM
    assert time.monotonic() - began < seconds + 1
    run = Run.of(composed)
    assert run.status is not None
    assert run.status.state == "interrupted"
    assert saved_step(run) == run.status.step == max(logged(run))
    assert f"the time that trainer.wall_minutes={seconds / 60:g} leaves is over at step" in capsys.readouterr().err


def test_a_measurement_keeps_what_was_settled(
    experiment_file: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation: dict[str, Any] = {
        "attacks": {"pgd": {"kind": "pgd", "steps": 1}},
        "samples": 12,
        "batch_size": 4,
        "pictures": 0,
    }
    sections: dict[str, Any] = {"trainer": TRAINER | {"steps": 2}, "evaluation": evaluation}
    composed = compose(experiment_file(**sections))
    assert train(composed) == 0
    run, settle, settled = Run.of(composed), Ledger.settle, []

    def then_signal(ledger: Ledger, *arguments: Any) -> None:
        settle(ledger, *arguments)
        settled.append(arguments)
        if len(settled) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(Ledger, "settle", then_signal)
    assert evaluate(composed, stage="after") == 138
    assert len(settled) == 2
    assert "SIGUSR1: what was complete is kept" in capsys.readouterr().err
    assert run.status is not None
    assert run.finished
    assert run.status.measuring.startswith("SIGUSR1")
    assert evaluate(composed, stage="after") == 0
    assert run.status is not None
    assert run.status.measuring == ""
    (ledger,) = run.folder.glob("ledger/*/pgd-*")
    assert len(Ledger(ledger).known) == evaluation["samples"]
    assert sum(len(records) for records, *_ in settled) == evaluation["samples"]  # none of them twice


def test_a_vaccination_is_cut_short_at_once(
    experiment_file: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bank.txt").write_text("\n".join(["purple disc", "grey square", "striped square", "noise"]))
    bank = {"kind": "file", "path": str(tmp_path / "bank.txt"), "selection": {"names": False, "duplicates": None}}
    settings = {
        "bank": "own", "epochs": 1, "batch_size": 16, "tail": 0.5, "tail_samples": 2, "margins": [0.0],
        "strengths": [1.0], "lambdas": [0.0], "cache": str(tmp_path / "cache"),
    }  # fmt: skip
    path = experiment_file(
        module={"kind": "none"}, attack={"kind": "none"}, antibodies={"own": bank}, vaccination=settings
    )
    composed = compose(path)
    immunise = Immunisation.training_step

    def signalled(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return immunise(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Immunisation, "training_step", signalled)
        assert train(composed) == 143
    run = Run.of(composed)
    assert run.status is not None
    assert run.status.state == "interrupted"
    assert not run.model.exists()
    assert train(composed) == 0
    assert run.model.exists()


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_ctrl_c_in_a_terminal_reaches_the_workers_too(
    experiment_file: Experiment, tiny_dataset: Path, start_method: str
) -> None:
    """A terminal signals the whole process group."""
    data = {
        "kind": "classification", "folder": str(tiny_dataset), "batch_size": 8, "workers": 2,
        "start_method": start_method,
    }  # fmt: skip
    experiment = experiment_file(data=data, trainer=TRAINER | {"steps": 5000, "checkpoint_every": 5000})
    run = Run.of(compose(experiment))
    command = [sys.executable, "-m", "experiments", "train", str(experiment)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    wait_until(lambda: run.metrics.exists() and len(logged(run)) > 3, process)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 130, told.decode()
    assert "Traceback" not in told.decode()
    assert run.status is not None
    assert run.status.state == "interrupted"
    assert saved_step(run) == run.status.step == max(logged(run))
