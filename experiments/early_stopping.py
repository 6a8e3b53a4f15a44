"""Ends a training that gets no more robust, and keeps the most robust weights that it had."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from experiments.checkpoints import settle
from experiments.runs import Run
from lightning_modules.ema import assign, learnt
from lightning_modules.sharding import gathered

SCORE = "val/robust_accuracy"


class EarlyStopping(Callback):
    """Stops after `patience` validations without a better robust accuracy, and leaves the weights of the best.

    The score is of the validation split under the validation attack; a test split plays no part. The best weights, as
    validated, are in best-STEP.ckpt beside the run's checkpoint. A file is only deleted once the last checkpoint speaks
    of a later one, so that a run that is cut short anywhere resumes exactly.
    """

    def __init__(self, run: Run, patience: int) -> None:
        self.run = run
        self.patience = patience
        self.best = -1.0
        self.step = 0  # of the best; 0 = none yet
        self.waited = 0  # validations since
        self._spoken_of = 0  # the best step that the last checkpoint knows

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes no further step where the checkpoint was saved with the patience at its end."""
        trainer.should_stop = self.waited >= self.patience

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judges the weights that were validated; rank 0 decides for all.

        Raises:
            TrainingError: the best weights can't be written.
        """
        score = trainer.strategy.broadcast(float(trainer.callback_metrics[SCORE]))
        if score > self.best:
            self.best, self.step, self.waited = score, trainer.global_step, 0
            self._keep(trainer, pl_module)
        else:
            self.waited += 1
            trainer.should_stop = self.waited >= self.patience

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leaves the best weights in the module, after every callback's `on_fit_end`, and says which they are."""
        if not self.step:
            return
        kept = trainer.strategy.checkpoint_io.load_checkpoint(self._file(self.step))
        assign(learnt(pl_module), kept["state_dict"])
        step = trainer.global_step
        early = f"stopped early at step {step}" if step < trainer.max_steps else "went to its last step"
        self.run.report(message=f"{early}; the model is that of step {self.step}, {SCORE} {self.best:.4f}")

    def state_dict(self) -> dict[str, Any]:
        self._spoken_of = self.step
        return {"best": self.best, "step": self.step, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.step, self.waited = (state_dict[name] for name in ("best", "step", "waited"))
        self._spoken_of = self.step

    def _file(self, step: int) -> Path:
        return self.run.checkpoint.with_name(f"best-{step}.ckpt")

    def _keep(self, trainer: Trainer, module: LightningModule) -> None:
        weights = {name: gathered(value).cpu() for name, value in learnt(module).items()}
        trainer.strategy.save_checkpoint({"state_dict": weights}, self._file(self.step))
        settle(trainer, self.run.checkpoint)
        if trainer.is_global_zero:
            needed = {self._file(step) for step in (self.step, self._spoken_of)}
            for file in set(self.run.checkpoint.parent.glob("best-*.ckpt")) - needed:
                file.unlink()
