"""What is validated and exported where it is not the last weights: their average, and the most robust ones."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from configs.compose import Composed, compose
from configs.schema.model import ModelConfig
from experiments.early_stopping import SCORE
from experiments.runs import Run
from experiments.train import train
from lightning_modules.backbones import load_backbone
from lightning_modules.ema import learnt
from tests.integration.runs import Fault, Signal, column, faulty, logged, same, weights

Experiment = Callable[..., Path]
TRAINER = {"steps": 8, "accelerator": "cpu", "checkpoint_every": 3, "log_every": 1, "threads": 1}


class Seen(Fault):
    """Keeps the trained weights after each step, and those that each validation sees."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.trained: dict[int, dict[str, Tensor]] = {}
        self.validated: dict[int, dict[str, Tensor]] = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.trained[trainer.global_step] = copied(pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.validated[trainer.global_step] = copied(pl_module)


class Scored(Fault):
    """Settles how robust each validation finds the model."""

    def __init__(self, scores: Mapping[int, float]) -> None:
        super().__init__(-1)
        self.scores = scores

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        pl_module.val_robust_accuracy.reset()
        pl_module.val_robust_accuracy.update(self.scores[trainer.global_step])


def copied(module: LightningModule) -> dict[str, Tensor]:
    return {name.removeprefix("backbone.clip."): value.clone() for name, value in learnt(module).items()}


def averaged(start: dict[str, Tensor], trained: dict[int, dict[str, Tensor]], decay: float, until: int) -> Any:
    """The average as one would write it down."""
    average = {name: value.double() for name, value in start.items()}
    for step in range(1, until + 1):
        kept = min(decay, (1 + step) / (10 + step))
        average = {name: kept * value + (1 - kept) * trained[step][name] for name, value in average.items()}
    return average


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_average_of_the_weights_is_validated_and_exported(
    experiment_file: Experiment, tiny_vit: str, accumulate: int
) -> None:
    """It follows the trained weights, which it does not touch: those of the same run without it."""
    sections = TRAINER | {"steps": 4, "accumulate": accumulate, "validate_every": 2}
    start = dict(load_backbone(ModelConfig(tiny_vit)).clip.state_dict())
    seen, plain = Seen(), Seen()
    composed = compose(experiment_file("averaged", trainer=sections | {"ema": 0.3}))
    with faulty(seen):
        assert train(composed) == 0
    with faulty(plain):
        assert train(compose(experiment_file("plain", trainer=sections))) == 0
    names = {name for name in seen.trained[1] if name.startswith("visual.")}
    started = {name: start[name] for name in names}
    for step in (2, 4):
        expected = averaged(started, seen.trained, 0.3, step)
        for name in names:
            assert torch.equal(seen.trained[step][name], plain.trained[step][name])
            torch.testing.assert_close(seen.validated[step][name].double(), expected[name], rtol=1e-5, atol=1e-7)
    exported = weights(Run.of(composed).model)
    assert all(torch.equal(exported[name], seen.validated[4][name]) for name in names)
    assert not any(torch.equal(exported[name], plain.trained[4][name]) for name in names)


def test_the_average_and_the_best_weights_resume_exactly(experiment_file: Experiment, tmp_path: Path) -> None:
    """After a power cut, or a signal where a validation is due and is left out."""
    trainer = TRAINER | {"ema": 0.5, "patience": 9, "validate_every": 2, "checkpoint_every": 2}
    whole = compose(experiment_file(output=str(tmp_path / "whole"), trainer=trainer))
    assert train(whole) == 0
    for fault in (Fault(4), Fault(7), Fault(8), Signal(4, 15), Signal(5, 15)):
        name = f"{type(fault).__name__}-{fault.step}"
        cut = compose(experiment_file(output=str(tmp_path / name), trainer=trainer))
        with faulty(fault):
            if isinstance(fault, Signal):
                assert train(cut) == 143, name
            else:
                with pytest.raises(RuntimeError, match="power cut"):
                    train(cut)
        assert train(cut) == 0, name
        assert logged(Run.of(cut)) == logged(Run.of(whole)), name
        assert same(weights(Run.of(cut).model), weights(Run.of(whole).model)), name
        assert message(cut) == message(whole), name


def message(composed: Composed) -> str:
    return str(json.loads(Run.of(composed).status_file.read_text())["message"])


SCORES = {1: 0.2, 2: 0.5, 3: 0.5, 4: 0.4, 5: 0.9}  # the best at 2, and 5 is never reached


@pytest.mark.parametrize("cut", [None, 1, 2, 3, 4])
def test_training_ends_with_patience_and_exports_the_best(experiment_file: Experiment, cut: int | None) -> None:
    composed = compose(experiment_file(trainer=TRAINER | {"patience": 2, "validate_every": 1, "checkpoint_every": 2}))
    run, seen = Run.of(composed), Seen()
    if cut is not None:
        with faulty(Scored(SCORES), first=True), faulty(Fault(cut)), pytest.raises(RuntimeError, match="power cut"):
            train(composed)
    with faulty(Scored(SCORES), first=True), faulty(seen):
        assert train(composed) == 0
    assert run.finished
    assert list(logged(run)) == [1, 2, 3, 4]
    assert message(composed) == f"stopped early at step 4; the model is that of step 2, {SCORE} 0.5000"
    exported = weights(run.model)
    if 2 in seen.validated:
        assert all(torch.equal(exported[name], value) for name, value in seen.validated[2].items() if name in exported)
    assert [path.name for path in run.checkpoint.parent.glob("best-*")] == ["best-2.ckpt"]


def test_a_run_that_was_killed_at_its_end_stops_at_once(experiment_file: Experiment) -> None:
    """The checkpoint of the last step knows that the patience is over."""
    composed = compose(experiment_file(trainer=TRAINER | {"patience": 2, "validate_every": 1, "checkpoint_every": 1}))

    class Cut(Scored):
        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.strike()

    with faulty(Cut(SCORES), first=True), pytest.raises(RuntimeError, match="power cut"):
        train(composed)
    with faulty(Scored(SCORES), first=True), faulty(Fault(5)):  # would strike if it went on
        assert train(composed) == 0
    assert list(logged(Run.of(composed))) == [1, 2, 3, 4]
    assert column(Run.of(composed), SCORE).shape == (4,)
