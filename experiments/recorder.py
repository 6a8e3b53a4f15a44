"""What training logs, and where it goes: the run's files, its progress bar, its status."""

import sys
import time
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from experiments.metrics_file import MetricsFile
from experiments.runs import Run
from experiments.watch import window_ends


class Recorder(Callback):
    """Hands what the module logged to the trainer's loggers every `every` steps of the optimiser, numbered from 1.

    It runs before a checkpoint is saved, so that a resumed run has every row, and every row once. Lightning's own
    logging, which comes after, is off (`log_every_n_steps=0`).
    """

    def __init__(self, run: Run, every: int) -> None:
        self.run = run
        self.every = every
        self._since = (0.0, 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops the rows of steps that are about to be repeated."""
        self._since = (time.perf_counter(), trainer.global_step)
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.forget(after=trainer.global_step)
        self.run.report(step=trainer.global_step, steps=trainer.max_steps)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Logs where a step is due for it."""
        step = trainer.global_step
        if window_ends(trainer, batch_idx) and step % self.every == 0:
            self._log(trainer, self._training_metrics(trainer))
            self.run.report(step=step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what validation measured, in the row of the last step."""
        if not trainer.sanity_checking:
            self._log(trainer, _scalars(trainer, "val/"))

    def _training_metrics(self, trainer: Trainer) -> dict[str, float]:
        (before, first), now = self._since, time.perf_counter()
        self._since = (now, trainer.global_step)
        pace = {"train/seconds_per_step": (now - before) / max(1, trainer.global_step - first)}
        return _scalars(trainer, "train/") | {"train/lr": float(trainer.optimizers[0].param_groups[0]["lr"])} | pace

    def _log(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
            logger.save()


class StepSeed(Callback):
    """Makes torch's global generator a function of (seed, step, rank), so that a resumed run draws what it would have."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seeds each batch."""
        position = [self.seed, trainer.fit_loop.epoch_loop.total_batch_idx, trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(position).generate_state(1, np.uint64)[0]))


class Bar(Callback):
    """One progress bar over the steps of the whole run, on rank 0; a line every ten seconds where there is no terminal."""

    def __init__(self, label: str, every: int) -> None:
        self.label = label
        self.every = every
        self._bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar where the run stands."""
        if trainer.is_global_zero:
            pause = 0.1 if sys.stderr.isatty() else 10.0
            self._bar = tqdm(
                total=trainer.max_steps, initial=trainer.global_step, desc=self.label, unit="step", mininterval=pause
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Advances, and shows what was logged last."""
        if self._bar is not None and window_ends(trainer, batch_idx):
            if trainer.global_step % self.every == 0:
                self._bar.set_postfix(_shown(_scalars(trainer, "train/")), refresh=False)
            self._bar.update(1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the bar."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Closes the bar, so that the error starts on a line of its own."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _scalars(trainer: Trainer, prefix: str) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}


def _shown(metrics: dict[str, float]) -> dict[str, str]:
    names = {"train/loss": "loss", "train/robust_accuracy": "robust", "train/clean_accuracy": "clean"}
    return {short: f"{metrics[name]:.3g}" for name, short in names.items() if name in metrics}
