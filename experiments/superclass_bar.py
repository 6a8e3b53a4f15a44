"""The progress of a superclass matrix."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from experiments.bar import open_bar
from lightning_modules.superclass import SuperclassEvaluation


class SuperclassBar(Callback):
    """One bar over the adversarial images of all attacks on all levels, on rank 0, naming the last of both."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._bar: tqdm[Any] | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar."""
        if trainer.is_global_zero and isinstance(pl_module, SuperclassEvaluation):
            share = pl_module.samples // trainer.world_size
            self._bar = open_bar(self.label, share * max(len(pl_module.aimed), 1), "image")
            pl_module.watcher = self._show

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Closes the bar, also after an error."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(self, title: str, images: int) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(title, refresh=False)
            self._bar.update(images)
