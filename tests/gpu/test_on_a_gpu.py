"""What a GPU may change, and what it may not. Skipped where there is none: python -m pytest -m gpu."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from configs.compose import compose
from experiments.evaluate import evaluate
from experiments.results import read
from experiments.runs import Run
from experiments.train import train
from tests.integration.runs import Fault, column, faulty, logged, same, weights

Experiment = Callable[..., Path]
ACCELERATOR = "gpu"
TRAINER = {"steps": 6, "accelerator": ACCELERATOR, "checkpoint_every": 2, "log_every": 1, "threads": 1}
ATTACKS = {
    "pgd": {"kind": "pgd", "eps_255": 4, "step_255": 1, "steps": 5},
    "apgd": {"kind": "apgd", "eps_255": 4, "steps": 5},
}

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")]


def test_a_gpu_trains_as_a_processor_does(experiment_file: Experiment) -> None:
    """Up to sums in another order, which six steps do not yet blow up."""
    here = compose(experiment_file("here", trainer=TRAINER | {"accelerator": "cpu"}))
    there = compose(experiment_file("there", trainer=TRAINER))
    assert train(here) == train(there) == 0
    losses = [column(Run.of(composed), "train/loss") for composed in (here, there)]
    torch.testing.assert_close(*losses, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("extra", [{}, {"gradient_checkpointing": True}, {"compile": "default"}, {"ema": 0.9}])
def test_every_way_to_train_keeps_the_budget(
    experiment_file: Experiment, precision: str, extra: dict[str, object]
) -> None:
    composed = compose(experiment_file(trainer=TRAINER | {"precision": precision, **extra}))
    assert train(composed) == 0
    run = Run.of(composed)
    assert column(run, "train/loss").isfinite().all()
    assert (column(run, "train/perturbation_linf_255") <= 8 + 1e-3).all()


def test_a_cut_run_resumes_exactly(experiment_file: Experiment, tmp_path: Path) -> None:
    deterministic = TRAINER | {"deterministic": True}
    whole = compose(experiment_file("whole", trainer=deterministic, output=str(tmp_path / "whole")))
    cut = compose(experiment_file("cut", trainer=deterministic))
    assert train(whole) == 0
    with faulty(Fault(3)), pytest.raises(RuntimeError, match="power cut"):
        train(cut)
    assert train(cut) == 0
    assert logged(Run.of(cut)) == logged(Run.of(whole))
    assert same(weights(Run.of(cut).model), weights(Run.of(whole).model))


@pytest.mark.parametrize("settings", [{}, {"precision": "bf16"}, {"compile": "cuda_graphs"}])
def test_attacks_fell_what_they_fell_on_a_processor(experiment_file: Experiment, settings: dict[str, object]) -> None:
    """But for the few samples that rounding decides."""
    measuring = {"attacks": ATTACKS, "batch_size": 16, "slots": 16, "checks": False}
    shares = []
    for accelerator, extra in (("cpu", {}), (ACCELERATOR, settings)):
        sections = {"trainer": TRAINER | {"accelerator": accelerator}, "evaluation": measuring | extra}
        composed = compose(experiment_file(f"on-{accelerator}", **sections))
        assert evaluate(composed, "before") == 0
        rows = read(Run.of(composed).results)
        shares.append(
            {row["attack_name"]: row["value"] for row in rows if row["metric"] == "accuracy" and not row["level"]}
        )
    assert shares[0].keys() == shares[1].keys() >= {None, *ATTACKS}
    for name, share in shares[0].items():
        assert abs(share - shares[1][name]) <= 2 / 31, name


def test_ranks_add_up_what_lies_on_the_host(experiment_file: Experiment) -> None:
    """Also one alone: NCCL serves what is on a GPU, and a test leaves its module on the host, figures included."""
    measuring = {"attacks": ATTACKS, "superclass": {"attacks": ATTACKS}, "batch_size": 16, "checks": False}
    path = experiment_file(trainer=TRAINER | {"strategy": "ddp"}, evaluation=measuring)
    done = subprocess.run([sys.executable, "-m", "experiments", "evaluate", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = {row["attack_name"] for row in read(Run.of(compose(path)).results)}
    assert names >= {*ATTACKS, "superclass", "pgd>leaf"}
