"""Watches a fit: a loss that is not finite ends it; a signal, or the end of its time, ends it after the step."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from configs.errors import TrainingError
from experiments.stop import TIME_IS_OVER, Stop

KEYS_SHOWN = 8
LOOK_S = 5.0  # between two looks, where steps take long


def window_ends(trainer: Trainer, batch_index: int) -> bool:
    """Whether this batch is the last before a step of the optimiser. An epoch holds whole accumulation windows."""
    return (batch_index + 1) % trainer.accumulate_grad_batches == 0


def kept(checkpoint: Path) -> str:
    """What a run that failed can go on from."""
    return f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no checkpoint was saved yet"


class Watch(Callback):
    """Looks at the losses, and at what asks for a stop, at steps where the host waits for the device anyway.

    Losses are kept on the device and looked at every `every` steps, sooner where steps take long, and before each
    checkpoint, so that no bad step is ever saved. All ranks decide alike, at such a step; one alone stops at once.

    The wall time is over for a fit while there is still time to come to the next look twice, with the longest step that
    this attempt has seen, its checkpoint and its validation included.
    """

    def __init__(self, stop: Stop, checkpoint: Path, every: int, checkpoint_every: int) -> None:
        self.stop = stop
        self.checkpoint = checkpoint
        self.every = every
        self.checkpoint_every = checkpoint_every
        self._seen: list[tuple[int, Tensor, list[str]]] = []
        self._looked = 0  # the last step that was
        self._stride = 1  # steps from one look to the next, alike on all ranks
        self._stepped = math.inf  # when the last step ended
        self._longest = 0.0  # seconds

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._looked, self._stepped = trainer.global_step, time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Raises TrainingError for a loss that is not finite; has all ranks agree on a stop."""
        ended = window_ends(trainer, batch_idx)
        step = trainer.global_step if ended else trainer.global_step + 1
        self._seen.append((step, outputs["loss"].detach(), batch["key"]))
        if ended:
            self._time(trainer)
            if self._due(trainer):
                self._look(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Has all ranks agree on a stop that was asked for meanwhile."""
        self._look(trainer)

    def _time(self, trainer: Trainer) -> None:
        now = time.monotonic()
        self._longest, self._stepped = max(self._longest, now - self._stepped), now
        stride = self._stride if trainer.world_size > 1 else 1
        if self.stop.wall.left < 2 * stride * self._longest:
            self.stop.request(TIME_IS_OVER)

    def _due(self, trainer: Trainer) -> bool:
        step = trainer.global_step
        regular = step % self.every == 0 or step % self.checkpoint_every == 0 or step == trainer.max_steps
        slow = step - self._looked >= self._stride
        return regular or slow or (trainer.world_size == 1 and self.stop.signal_number > 0)

    def _look(self, trainer: Trainer) -> None:
        seen, self._seen = self._seen, []
        bad = [not loss for loss in torch.stack([loss for _, loss, _ in seen]).isfinite().tolist()] if seen else []
        told = torch.tensor(
            [any(bad), self.stop.signal_number, self._longest], dtype=torch.float32, device=trainer.strategy.root_device
        )
        failed, number, longest = trainer.strategy.reduce(told, reduce_op="max").tolist()
        if failed:
            raise TrainingError(self._explain(trainer, seen, bad))
        if number:
            self.stop.signal_number, self.stop.agreed = int(number), True
        self._looked, self._longest = trainer.global_step, longest
        self._stride = max(1, min(self.every, int(LOOK_S / max(longest, 1e-3))))

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
