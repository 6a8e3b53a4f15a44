"""The progress of training."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from experiments.bar import open_bar
from experiments.recorder import scalars
from experiments.watch import window_ends


class Bar(Callback):
    """One bar over the steps of the whole run, on rank 0; updated every ten seconds where there is no terminal."""

    def __init__(self, label: str, every: int) -> None:
        self.label = label
        self.every = every
        self._bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar where the run stands."""
        if trainer.is_global_zero:
            self._bar = open_bar(self.label, trainer.max_steps, "step", initial=trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advances, and shows what was logged last."""
        if self._bar is not None and window_ends(trainer, batch_idx):
            if trainer.global_step % self.every == 0:
                self._bar.set_postfix(_shown(scalars(trainer, "train/")), refresh=False)
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


def _shown(metrics: dict[str, float]) -> dict[str, str]:
    names = {"train/loss": "loss", "train/robust_accuracy": "robust", "train/clean_accuracy": "clean"}
    return {short: f"{metrics[name]:.3g}" for name, short in names.items() if name in metrics}
