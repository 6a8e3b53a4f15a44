"""What training logs, and where it goes."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from experiments.runs import Run
from experiments.watch import window_ends


class Sink(Protocol):
    """Something that keeps metrics."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Keeps the values of a step."""

    def forget(self, after: int) -> None:
        """The steps later than `after` will be logged again."""


class Recorder(Callback):
    """Hands what the module logged to the sinks every `every` steps of the optimiser, numbered from 1, on rank 0.

    It runs before a checkpoint is saved, so that a resumed run has every row, and every row once. Lightning's loggers
    number from 0 and write after the checkpoint, and are not used.
    """

    def __init__(self, run: Run, every: int, sinks: Sequence[Sink]) -> None:
        self.run = run
        self.every = every
        self.sinks = sinks
        self._since = (0.0, 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops the rows of steps that are about to be repeated."""
        self._since = (time.perf_counter(), trainer.global_step)
        self.run.report(step=trainer.global_step, steps=trainer.max_steps)
        if trainer.is_global_zero:
            for sink in self.sinks:
                sink.forget(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs where a step is due for it."""
        if window_ends(trainer, batch_idx) and trainer.global_step % self.every == 0:
            self._log(trainer, scalars(trainer, "train/") | scalars(trainer, "depth/") | self._pace(trainer))
            self.run.report(step=trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what validation measured, in the row of the last step."""
        self._log(trainer, scalars(trainer, "val/"))

    def _pace(self, trainer: Trainer) -> dict[str, float]:
        (before, first), now = self._since, time.perf_counter()
        self._since = (now, trainer.global_step)
        return {
            "train/lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "train/seconds_per_step": (now - before) / max(1, trainer.global_step - first),
        }

    def _log(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if trainer.is_global_zero:
            for sink in self.sinks:
                sink.log(metrics, trainer.global_step)


def scalars(trainer: Trainer, prefix: str) -> dict[str, float]:
    """What was logged last under names that start with `prefix`; waits for the device."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}


class StepSeed(Callback):
    """Makes torch's global generator a function of (seed, batch, rank), so that a resumed run draws the same."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seeds each batch."""
        position = [self.seed, trainer.fit_loop.epoch_loop.total_batch_idx, trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(position).generate_state(1, np.uint64)[0]))
