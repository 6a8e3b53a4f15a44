"""Ctrl-C and SIGTERM: the step is finished and saved, and the same command goes on from it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.compose import compose
from experiments.runs import Run
from experiments.train import train
from tests.integration.runs import Signal, faulty, logged, same, saved_step, weights
from tests.integration.test_resume import TRAINER, uninterrupted, wait_until

Experiment = Callable[..., Path]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("step", [1, 4])
def test_saves_the_step_says_how_to_resume_and_resumes(
    experiment_file: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int, code: int, step: int
) -> None:
    composed, whole = uninterrupted(experiment_file, tmp_path, trainer=TRAINER)
    run = Run.of(composed)
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with faulty(Signal(step, number), first=True):  # arrives within the step, before anything looks for it
        assert train(composed) == code
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    assert saved_step(run) == step
    assert run.status is not None
    assert (run.status.state, run.status.step) == ("interrupted", step)
    told = capsys.readouterr().err
    assert f"{signal.Signals(number).name} at step {step}" in told
    assert "start the same command again to resume" in told
    assert train(composed) == 0
    assert logged(run) == logged(whole)
    assert same(weights(run.model), weights(whole.model))


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
