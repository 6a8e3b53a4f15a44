"""Ways for two gloo processes to train one model: the same run, whichever they take."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import writer

from configs.compose import compose
from experiments.runs import Run
from lightning_modules.backbones.export import HEAD_FILE
from tests.integration.runs import column, logged, same, weights

pytestmark = pytest.mark.slow

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
SEVERAL = ["-m", "tests.distributed.several"]
HIERARCHICAL = {"kind": "robust_finetuning", "objective": {"kind": "hierarchical"}}
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


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path, tiny_vit: str) -> dict[str, Run]:
    """All by name, trained one after another by the same two processes, which take long to start."""
    write = writer(tmp_path_factory.mktemp("runs"), tiny_dataset, tiny_vit)
    beside, clipless = {"module": HIERARCHICAL, "optim": SGD}, TRAINER | {"accumulate": 2, "clip_norm": None}
    reported = {"module": HIERARCHICAL, "trainer": TRAINER | {"log_every": 2, "strategy": "ddp"}}
    files = {
        "whole": write("whole", optim=SGD, trainer=TRAINER | {"strategy": "ddp"}),
        "shared": write("shared", optim=SGD, trainer=TRAINER | {"strategy": "fsdp"}),
        "cut": write("cut", optim=SGD, trainer=TRAINER | {"strategy": "fsdp"}),
        "beside_whole": write("beside_whole", trainer=clipless | {"strategy": "ddp"}, **beside),
        "beside_shared": write(
            "beside_shared", trainer=clipless | {"strategy": "fsdp", "gradient_checkpointing": True}, **beside
        ),
        "static": write("static", **reported),
        "changing": write("changing", **reported),
    }
    ways = {"cut": "@3", "changing": "!"}
    trained(*(f"{file}{ways.get(name, '')}" for name, file in files.items()))
    return {name: Run.of(compose(file)) for name, file in files.items()}


def test_a_shared_tower_trains_as_whole_ones_do(runs: dict[str, Run]) -> None:
    """Clipped, averaged, with early stopping. A run that was cut short resumes bit by bit, and its checkpoint is what
    another strategy would have written."""
    whole, shared, cut = (runs[name] for name in ("whole", "shared", "cut"))
    assert_alike(whole, shared)
    assert logged(cut) == logged(shared)
    assert same(weights(cut.model), weights(shared.model))
    one, two = (torch.load(run.checkpoint, weights_only=True) for run in (whole, shared))
    for part in ("state_dict", "callbacks"):
        assert_close(one[part], two[part])
    assert_close(one["optimizer_states"][0]["state"], two["optimizer_states"][0]["state"])


def test_what_is_trained_beside_a_shared_tower_is_the_same_on_all_ranks(runs: dict[str, Run]) -> None:
    """The text projection and a hyperbolic head, with accumulation and recomputed blocks."""
    assert_alike(runs["beside_whole"], runs["beside_shared"])


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


def test_a_static_graph_changes_no_weight(runs: dict[str, Run]) -> None:
    """Where only every other step is reported."""
    static, changing = runs["static"], runs["changing"]
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
