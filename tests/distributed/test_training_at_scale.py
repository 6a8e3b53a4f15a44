"""Ways for two gloo processes to train one model: the same run, whichever they take."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from configs.compose import compose
from experiments.runs import Run
from lightning_modules.backbones.export import HEAD_FILE
from tests.integration.runs import column, logged, same, weights

pytestmark = pytest.mark.slow

Experiment = Callable[..., Path]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
SEVERAL = ["-m", "tests.distributed.several"]
SGD = {"kind": "sgd", "lr": 0.01, "momentum": 0.9}  # linear in the gradient, with a state of its own
TRAINER = {
    "steps": 4, "accelerator": "cpu", "devices": 2, "checkpoint_every": 2, "log_every": 1, "threads": 1,
    "validate_every": 2, "ema": 0.5, "patience": 9, "clip_norm": 0.5,
}  # fmt: skip
FIGURES = ("train/loss", "train/robust_accuracy", "train/perturbation_l2", "train/lr")


def trained(*runs: str) -> None:
    """In two processes."""
    done = subprocess.run([*TORCHRUN, *SEVERAL, *runs], capture_output=True, text=True, check=False, timeout=540)
    assert done.returncode == 0, done.stderr


def test_a_shared_tower_trains_as_whole_ones_do(experiment_file: Experiment) -> None:
    """Clipped, averaged, with early stopping. A run that was cut short resumes bit by bit, and its checkpoint is what
    another strategy would have written."""
    files = {
        name: experiment_file(name, optim=SGD, trainer=TRAINER | {"strategy": strategy})
        for name, strategy in {"whole": "ddp", "shared": "fsdp", "cut": "fsdp"}.items()
    }
    trained(str(files["whole"]), str(files["shared"]), f"{files['cut']}@3")
    whole, shared, cut = (Run.of(compose(file)) for file in files.values())
    assert_alike(whole, shared)
    assert logged(cut) == logged(shared)
    assert same(weights(cut.model), weights(shared.model))
    one, two = (torch.load(run.checkpoint, weights_only=True) for run in (whole, shared))
    for part in ("state_dict", "callbacks"):
        assert_close(one[part], two[part])
    assert_close(one["optimizer_states"][0]["state"], two["optimizer_states"][0]["state"])


def test_what_is_trained_beside_a_shared_tower_is_the_same_on_all_ranks(experiment_file: Experiment) -> None:
    """The text projection and a hyperbolic head, with accumulation and recomputed blocks."""
    sections = {"module": {"kind": "robust_finetuning", "objective": {"kind": "hierarchical"}}, "optim": SGD}
    trainer = TRAINER | {"accumulate": 2, "clip_norm": None}
    whole = experiment_file("whole", trainer=trainer | {"strategy": "ddp"}, **sections)
    shared = experiment_file(
        "shared", trainer=trainer | {"strategy": "fsdp", "gradient_checkpointing": True}, **sections
    )
    trained(str(whole), str(shared))
    assert_alike(*(Run.of(compose(file)) for file in (whole, shared)))


def assert_alike(one: Run, two: Run) -> None:
    """The same figures and the same model, but for rounding."""
    for name in FIGURES:
        torch.testing.assert_close(column(two, name), column(one, name), rtol=1e-3, atol=1e-4)
    for step in (2, 4):
        assert logged(two)[step]["val/robust_accuracy"] == logged(one)[step]["val/robust_accuracy"]
    for name, value in weights(one.model).items():
        torch.testing.assert_close(weights(two.model)[name], value, rtol=1e-3, atol=1e-5)
    heads = [run.model / HEAD_FILE for run in (one, two)]
    if heads[0].exists():
        assert_close(*(json.loads(file.read_text()) for file in heads))


def test_a_static_graph_changes_no_weight(experiment_file: Experiment) -> None:
    """Where only every other step is reported."""
    sections = {
        "module": {"kind": "robust_finetuning", "objective": {"kind": "hierarchical"}},
        "trainer": TRAINER | {"log_every": 2, "strategy": "ddp"},
    }
    files = [experiment_file(name, **sections) for name in ("static", "changing")]
    trained(str(files[0]), f"{files[1]}!")
    static, changing = (Run.of(compose(file)) for file in files)
    assert logged(static) == logged(changing)
    assert same(weights(static.model), weights(changing.model))


def assert_close(one: object, two: object) -> None:
    """Containers of the same build, with tensors that are close."""
    assert type(one) is type(two)
    if isinstance(one, torch.Tensor | float):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
    elif isinstance(one, dict) and isinstance(two, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_close(one[key], two[key])
    elif isinstance(one, list) and isinstance(two, list):
        for first, second in zip(one, two, strict=True):
            assert_close(first, second)
