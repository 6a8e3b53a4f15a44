"""Checkpoints: the last good state of a run, whole or not at all."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer

from configs.errors import CheckpointError, TrainingError
from experiments.atomic import replacing
from experiments.watch import Stop, kept, window_ends

_HASH = "config_hash"


class CheckpointFile(CheckpointIO):
    """Reads and writes a run's one checkpoint.

    It takes the earlier one's place only when it is complete, and is read without unpickling code. A failed write is
    kept in `failure` instead of being raised: rank 0 writes alone, and the other ranks wait for it.
    """

    def __init__(self, config_hash: str) -> None:
        self.config_hash = config_hash
        self.failure = ""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes beside the earlier checkpoint, then replaces it."""
        self.failure = ""
        try:
            with replacing(Path(path)) as file:
                torch.save({**checkpoint, _HASH: self.config_hash}, file)
        except (OSError, RuntimeError) as error:  # torch's archive writer turns a full disk into a RuntimeError
            self.failure = f"{path} can't be written ({_first_line(error)})"

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """The checkpoint, on the CPU. Raises CheckpointError: damaged, not a checkpoint, or another configuration's."""
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged archive fails in zipfile, pickle or torch
            raise CheckpointError(
                f"{path} is damaged or no checkpoint of this project ({_first_line(error)}); remove it to start anew"
            ) from error
        found = checkpoint.get(_HASH)
        if found != self.config_hash:
            raise CheckpointError(
                f"{path} belongs to configuration {found}, this run is {self.config_hash}; "
                "start that configuration, or remove the file to start anew"
            )
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Deletes the file."""
        Path(path).unlink(missing_ok=True)


class Checkpoints(Callback):
    """Saves every `every` steps, after the last one, and before a requested stop; never weights that are not finite."""

    def __init__(self, path: Path, every: int, stop: Stop) -> None:
        self.path = path
        self.every = every
        self.stop = stop

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves where a step of the optimiser is due for it.

        Raises:
            TrainingError: weights not finite, disk full.
            Interrupted: after the save that precedes a requested stop.
        """
        step = trainer.global_step
        due = step % self.every == 0 or step == trainer.max_steps or self.stop.agreed
        if window_ends(trainer, batch_idx) and due:
            self._check_weights(trainer, pl_module)
            self._save(trainer)
            # Not trainer.should_stop: it would run a whole validation first.
            if self.stop.agreed:
                raise self.stop.interruption(step, self.path)

    def _check_weights(self, trainer: Trainer, module: LightningModule) -> None:
        trained = [parameter.detach() for parameter in module.parameters() if parameter.requires_grad]
        if trained and not torch.stack([weight.isfinite().all() for weight in trained]).all():
            raise TrainingError(
                f"weights are not finite after step {trainer.global_step} (its gradient overflowed); {kept(self.path)};"
                " lower optim.lr or set trainer.clip_norm"
            )

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        file = trainer.strategy.checkpoint_io
        failure = trainer.strategy.broadcast(file.failure if isinstance(file, CheckpointFile) else "")
        if failure:
            raise TrainingError(
                f"{failure}; {kept(self.path)}; free some space and start the same command again to go on"
            )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
