"""Helpers of the tests that train: what a run logged, and faults that strike in the middle of one."""

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import load_file
from torch import Tensor

from experiments import trainer as trainers
from experiments.runs import Run

TIMED = "train/seconds_per_step"


def logged(run: Run) -> dict[int, dict[str, str]]:
    """Step -> what was logged, as written, without what the clock said. Every step once."""
    with run.metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row.pop("step")) for row in rows]
    assert len(set(steps)) == len(steps)
    return {
        step: {key: value for key, value in row.items() if key != TIMED} for step, row in zip(steps, rows, strict=True)
    }


def column(run: Run, name: str) -> Tensor:
    """One logged quantity over the steps."""
    return torch.tensor([float(row[name]) for row in logged(run).values()], dtype=torch.float64)


def weights(folder: Path) -> dict[str, Tensor]:
    """Of an exported model."""
    return load_file(folder / "open_clip_model.safetensors")


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    """Bit-equal weights."""
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def saved_step(run: Run) -> int:
    """The step of the checkpoint."""
    return int(torch.load(run.checkpoint, weights_only=True)["global_step"])


class Fault(Callback):
    """Strikes at the end of a step, after everything else that happens there."""

    def __init__(self, step: int) -> None:
        self.step = step

    def strike(self) -> None:
        """Ends the fit without a chance to save."""
        raise RuntimeError("power cut")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            self.strike()


class Signal(Fault):
    """Sends a signal to this process."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__(step)
        self.number = number

    def strike(self) -> None:
        os.kill(os.getpid(), self.number)


@contextmanager
def faulty(fault: Callback, first: bool = False) -> Iterator[None]:
    """Trainers that are built in this block have the fault among their callbacks."""
    built = trainers._callbacks

    def with_fault(*arguments: Any) -> list[Callback]:
        callbacks = built(*arguments)
        return [fault, *callbacks] if first else [*callbacks, fault]

    trainers._callbacks = with_fault
    try:
        yield
    finally:
        trainers._callbacks = built
