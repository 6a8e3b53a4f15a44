"""Checkpoints: the last good state of a run, whole or not at all."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer

from configs.errors import CheckpointError, TrainingError
from experiments.atomic import replacing
from experiments.stop import Stop
from experiments.watch import kept, window_ends
from lightning_modules.sharding import local

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
    """Saves every `every` steps, after the last one, also where patience ends a run before it, and before a requested
    stop; never weights that are not finite.

    Where a validation is due as well, the checkpoint follows it, so that it holds what was learnt from it. A requested
    stop does not wait for one, unless it is the last: the resumed run makes up for it before its next step.
    """

    def __init__(self, path: Path, every: int, validate_every: int, stop: Stop) -> None:
        self.path = path
        self.every = every
        self.validate_every = validate_every
        self.stop = stop
        self._validated = 0  # the last step that was

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes up for a validation that a stop left out."""
        if self._validates(trainer.global_step) and trainer.global_step != self._validated:
            validation = trainer.fit_loop.epoch_loop.val_loop
            validation.restarting = False  # none of it was done
            trainer.validating = True
            validation.run()
            trainer.training = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves where a step of the optimiser is due for it.

        Raises:
            TrainingError: weights not finite, disk full.
            Interrupted: after the save that precedes a requested stop.
        """
        step = trainer.global_step
        waits = self._validates(step) and (step == trainer.max_steps or not self.stop.agreed)
        if window_ends(trainer, batch_idx) and not waits:
            self._save_where_due(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves where the step that was validated is due for it; raises as the end of a batch does."""
        self._validated = trainer.global_step
        self._save_where_due(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"validated": self._validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validated = state_dict["validated"]

    def _validates(self, step: int) -> bool:
        return self.validate_every > 0 and step > 0 and step % self.validate_every == 0

    def _save_where_due(self, trainer: Trainer, module: LightningModule) -> None:
        step = trainer.global_step
        last = step == trainer.max_steps or trainer.should_stop
        if step % self.every == 0 or last or self.stop.agreed:
            self._check_weights(trainer, module)
            trainer.save_checkpoint(self.path)
            settle(trainer, self.path)
            # Not trainer.should_stop: it would run a whole validation first.
            if self.stop.agreed:
                raise self.stop.interruption(step, self.path)

    def _check_weights(self, trainer: Trainer, module: LightningModule) -> None:
        shares = [local(weight.detach()) for weight in module.parameters() if weight.requires_grad]
        finite = not shares or bool(torch.stack([share.isfinite().all() for share in shares]).all())
        if not trainer.strategy.reduce_boolean_decision(finite):
            raise TrainingError(
                f"weights are not finite after step {trainer.global_step} (its gradient overflowed); {kept(self.path)};"
                " lower optim.lr or set trainer.clip_norm"
            )


def settle(trainer: Trainer, checkpoint: Path) -> None:
    """Raises TrainingError on every rank where rank 0 could not write a file of the run."""
    file = trainer.strategy.checkpoint_io
    failure = trainer.strategy.broadcast(file.failure if isinstance(file, CheckpointFile) else "")
    if failure:
        raise TrainingError(f"{failure}; {kept(checkpoint)}; free some space and start the same command again to go on")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
