"""Two gloo processes against one: the same run. Through the command line, as Lightning and torchrun start it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from configs.compose import compose
from experiments.runs import Run
from experiments.train import train
from tests.integration.runs import column, logged, saved_step, weights
from tests.integration.test_resume import wait_until

pytestmark = pytest.mark.slow

Experiment = Callable[..., Path]
TRAINER = {"steps": 4, "accelerator": "cpu", "checkpoint_every": 3, "log_every": 1, "threads": 1}
TWO = TRAINER | {"devices": 2, "strategy": "ddp"}
SGD = {"kind": "sgd", "lr": 0.01}  # linear in the gradient: Adam would divide rounding errors by each other
LIGHTNING = ["-m", "experiments"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
SAME = ("train/loss", "train/robust_accuracy", "train/clean_accuracy", "train/perturbation_l2", "train/lr")


def launch(launcher: list[str], experiment: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *launcher, "train", str(experiment)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=540)


OBJECTIVES: list[dict[str, object]] = [
    {"kind": "tecoa"}, {"kind": "fare"}, {"kind": "hierarchical", "text_attack": {"eps": 1e-3, "prompts": 5}},
]  # fmt: skip


def test_two_processes_train_as_one_does(experiment_file: Experiment) -> None:
    """The same two processes train all objectives."""
    twos = []
    for objective in OBJECTIVES:
        sections = {"module": {"kind": "robust_finetuning", "objective": objective}, "optim": SGD}
        alone = experiment_file(f"one_{objective['kind']}", trainer=TRAINER | {"accumulate": 2}, **sections)
        assert train(compose(alone)) == 0
        twos.append(experiment_file(f"two_{objective['kind']}", trainer=TWO | {"accumulate": 2}, **sections))
    command = [sys.executable, *TORCHRUN, "tests.distributed.several", *map(str, twos)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=540)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("finished:") == len(OBJECTIVES)  # rank 0 alone speaks
    for two in twos:
        alone = two.with_name(two.name.replace("two", "one"))
        assert_alike(Run.of(compose(alone)), Run.of(compose(two)))


def assert_alike(single: Run, double: Run) -> None:
    assert double.finished
    assert list(logged(double)) == [1, 2, 3, 4]
    for name in SAME:
        torch.testing.assert_close(column(double, name), column(single, name), rtol=1e-3, atol=1e-4)
    for name, value in weights(single.model).items():
        torch.testing.assert_close(weights(double.model)[name], value, rtol=1e-3, atol=1e-5)


def test_a_failure_on_all_ranks_is_told_once(experiment_file: Experiment) -> None:
    experiment = experiment_file(optim={"kind": "sgd", "lr": 1e30}, trainer=TWO)
    done = launch(LIGHTNING, experiment)
    assert done.returncode == 2
    assert done.stderr.count("the loss of step 2 is nan") == 1
    assert "Traceback" not in done.stderr


def test_a_signal_to_one_rank_stops_all_after_a_step(experiment_file: Experiment) -> None:
    experiment = experiment_file(trainer=TWO | {"steps": 5000, "checkpoint_every": 5000})
    run = Run.of(compose(experiment))
    command = [sys.executable, *LIGHTNING, "train", str(experiment)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    wait_until(lambda: run.metrics.exists() and len(logged(run)) > 2, process)
    os.kill(process.pid, signal.SIGTERM)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 143, told.decode()
    assert run.status is not None
    assert run.status.state == "interrupted"
    assert saved_step(run) == run.status.step == max(logged(run))
    done = launch([*TORCHRUN, "experiments"], experiment_file(trainer=TWO))  # the devices are free again
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("finished:") == 1
