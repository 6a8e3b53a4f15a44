"""A run that was cut short goes on as if nothing had happened: same samples, same losses, same weights, bit by bit."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from configs.compose import Composed, compose
from experiments.runs import Run
from experiments.train import train
from tests.integration.runs import Fault, faulty, logged, same, saved_step, weights

Experiment = Callable[..., Path]
STEPS = 8
TRAINER = {"steps": STEPS, "accelerator": "cpu", "checkpoint_every": 3, "log_every": 1, "threads": 1}


def uninterrupted(experiment_file: Experiment, tmp_path: Path, **sections: object) -> tuple[Composed, Run]:
    """The experiment, and the same one trained in one go elsewhere."""
    whole = compose(experiment_file("whole", output=str(tmp_path / "whole"), **sections))
    assert train(whole) == 0
    return compose(experiment_file(**sections)), Run.of(whole)


def assert_equal(run: Run, whole: Run) -> None:
    assert run.finished
    assert logged(run) == logged(whole)
    assert same(weights(run.model), weights(whole.model))


@pytest.mark.parametrize(
    ("objective", "accumulate", "epoch", "cuts"),  # steps an epoch: interruptions fall within epochs, and between them
    [("tecoa", 1, 4, range(1, STEPS)), ("fare", 2, 3, (2, 3, 4, 6))],
)
def test_resumes_exactly_after_a_power_cut_at_any_step(
    experiment_file: Experiment,
    tmp_path: Path,
    tiny_dataset: Path,
    objective: str,
    accumulate: int,
    epoch: int,
    cuts: Sequence[int],
) -> None:
    batch_size = 96 // (epoch * accumulate)
    sections = {
        "data": {"kind": "classification", "folder": str(tiny_dataset), "batch_size": batch_size, "workers": 0},
        "module": {"kind": "robust_finetuning", "objective": {"kind": objective}},
        "attack": {"kind": "pgd", "steps": 1},
        "trainer": TRAINER | {"accumulate": accumulate},
    }
    _, whole = uninterrupted(experiment_file, tmp_path, **sections)
    for step in cuts:
        composed = compose(experiment_file(output=str(tmp_path / f"cut-{step}"), **sections))
        run = Run.of(composed)
        with faulty(Fault(step)), pytest.raises(RuntimeError, match="power cut"):
            train(composed)
        assert run.status is not None
        assert run.status.state == "failed"
        assert run.checkpoint.exists() == (step >= 3)
        assert train(composed) == 0
        assert_equal(run, whole)


def test_random_draws_of_the_model_resume_too(experiment_file: Experiment, tmp_path: Path) -> None:
    """Whatever draws from torch's global generator while training, such as dropout, repeats itself."""
    drawn: dict[str, list[float]] = {"whole": [], "cut": []}

    class Draw(Fault):
        def __init__(self, step: int, name: str) -> None:
            super().__init__(step)
            self.name = name

        def on_before_backward(self, trainer: Trainer, pl_module: object, loss: object) -> None:
            del drawn[self.name][trainer.global_step :]  # a step that is repeated counts once
            drawn[self.name].append(torch.rand(()).item())

    whole = compose(experiment_file(output=str(tmp_path / "whole"), trainer=TRAINER))
    with faulty(Draw(-1, "whole")):
        assert train(whole) == 0
    cut = compose(experiment_file(trainer=TRAINER))
    with faulty(Draw(5, "cut")), pytest.raises(RuntimeError, match="power cut"):
        train(cut)
    torch.manual_seed(12345)
    with faulty(Draw(-1, "cut")):
        assert train(cut) == 0
    assert drawn["cut"] == drawn["whole"]
    assert len(set(drawn["whole"])) == STEPS


def test_a_run_that_died_before_its_export_only_exports(experiment_file: Experiment, tmp_path: Path) -> None:
    composed, whole = uninterrupted(experiment_file, tmp_path, trainer=TRAINER)
    run = Run.of(composed)
    with faulty(Fault(STEPS)), pytest.raises(RuntimeError, match="power cut"):
        train(composed)
    assert saved_step(run) == STEPS
    assert not run.model.exists()
    with faulty(Fault(STEPS)):  # would strike if it trained again
        assert train(composed) == 0
    assert_equal(run, whole)


@pytest.mark.slow
def test_resumes_exactly_after_kill_9(experiment_file: Experiment, tmp_path: Path, tiny_dataset: Path) -> None:
    """Through the command line, with loader workers, killed at whichever step it happens to be."""
    data = {"kind": "classification", "folder": str(tiny_dataset), "batch_size": 8, "workers": 2}
    sections = {"data": data, "trainer": TRAINER | {"steps": 60}}
    composed, whole = uninterrupted(experiment_file, tmp_path, **sections)
    run = Run.of(composed)
    command = [sys.executable, "-m", "experiments", "train", str(experiment_file(**sections))]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_until(lambda: run.checkpoint.exists() and len(logged(run)) > 10, process)
    process.kill()
    process.wait()
    assert run.status is not None
    assert run.status.state == "running"
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert_equal(run, whole)


def wait_until(happened: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    while not happened():
        assert process.poll() is None, "the process ended by itself"
        time.sleep(0.05)
