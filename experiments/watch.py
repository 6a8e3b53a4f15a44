"""Watches a fit: a loss that is not finite ends it, a signal ends it after the step."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from configs.errors import TrainingError
from experiments.runs import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
KEYS_SHOWN = 8
PATIENCE_S = 1.0


def window_ends(trainer: Trainer, batch_index: int) -> bool:
    """Whether this batch is the last before a step of the optimiser. An epoch holds whole accumulation windows."""
    return (batch_index + 1) % trainer.accumulate_grad_batches == 0


def kept(checkpoint: Path) -> str:
    """What a run that failed can go on from."""
    return f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no checkpoint was saved yet"


class Stop:
    """Turns Ctrl-C or SIGTERM into a request to stop after the step. Another Ctrl-C, a second later, stops at once;
    launchers that pass signals on make two of one."""

    def __init__(self) -> None:
        self.signal_number = 0
        self.agreed = False  # by all ranks, at the same step
        self._since = 0.0

    def request(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if not self.signal_number:
            self.signal_number, self._since = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._since > PATIENCE_S:
            raise KeyboardInterrupt

    def listen(self) -> None:
        """Installs the handler; again in training, just before which Lightning installs its own."""
        for number in SIGNALS:
            signal.signal(number, self.request)

    def interruption(self, step: int, checkpoint: Path) -> Interrupted:
        """What the run ends with."""
        name = signal.Signals(self.signal_number).name
        saved = f"{checkpoint} is saved" if checkpoint.exists() else "nothing was saved yet"
        told = f"{name} at step {step}: {saved}; start the same command again to resume"
        return Interrupted(self.signal_number, told)

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Handles the signals within the block (in the main thread)."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self.listen()
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Watch(Callback):
    """Looks at the losses, and at the signals, at steps where the host waits for the device anyway.

    Losses are kept on the device and looked at every `every` steps, and before each checkpoint, so that no bad step is
    ever saved. All ranks decide alike: with several of them a signal is acted on at such a step too; alone, at once.
    """

    def __init__(self, stop: Stop, checkpoint: Path, every: int, checkpoint_every: int) -> None:
        self.stop = stop
        self.checkpoint = checkpoint
        self.every = every
        self.checkpoint_every = checkpoint_every
        self._seen: list[tuple[int, Tensor, list[str]]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the signals back from Lightning, which would end the fit without saving."""
        self.stop.listen()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Raises TrainingError for a loss that is not finite; has all ranks agree on a stop after a signal."""
        step = trainer.global_step if window_ends(trainer, batch_idx) else trainer.global_step + 1
        self._seen.append((step, outputs["loss"].detach(), batch["key"]))
        if window_ends(trainer, batch_idx) and self._due(trainer):
            self._look(trainer)

    def _due(self, trainer: Trainer) -> bool:
        step = trainer.global_step
        regular = step % self.every == 0 or step % self.checkpoint_every == 0 or step == trainer.max_steps
        return regular or (trainer.world_size == 1 and self.stop.signal_number > 0)

    def _look(self, trainer: Trainer) -> None:
        seen, self._seen = self._seen, []
        bad = ~torch.stack([loss for _, loss, _ in seen]).isfinite()
        flags = torch.stack(
            [bad.any().int(), torch.tensor(self.stop.signal_number, dtype=torch.int32, device=bad.device)]
        )
        failed, number = trainer.strategy.reduce(flags, reduce_op="max").tolist()
        if failed:
            raise TrainingError(self._explain(trainer, seen, bad.tolist()))
        if number:
            self.stop.signal_number, self.stop.agreed = number, True

    def _explain(self, trainer: Trainer, seen: list[tuple[int, Tensor, list[str]]], bad: list[bool]) -> str:
        mine = [(step, loss.item(), keys) for (step, loss, keys), is_bad in zip(seen, bad, strict=True) if is_bad]
        found: list[Any] = [mine[:1]]
        if trainer.world_size > 1:
            found = [None] * trainer.world_size
            torch.distributed.all_gather_object(found, mine[:1])
        step, loss, keys = min((first for rank in found for first in rank), key=lambda first: first[0])
        shown = ", ".join(keys[:KEYS_SHOWN]) + (f" and {len(keys) - KEYS_SHOWN} more" if len(keys) > KEYS_SHOWN else "")
        return (
            f"the loss of step {step} is {loss} on samples {shown}; {kept(self.checkpoint)}; "
            "lower optim.lr or set trainer.clip_norm"
        )
