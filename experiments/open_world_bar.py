"""The progress of an open-world evaluation."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from experiments.bar import open_bar
from lightning_modules.detection.clean_look import Part
from lightning_modules.detection.evaluation import OpenWorldEvaluation


class OpenWorldBar(Callback):
    """One bar over the images of all parts, on rank 0; an attacked image counts once for every attack on it."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._bar: tqdm[Any] | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar."""
        if trainer.is_global_zero and isinstance(pl_module, OpenWorldEvaluation):
            total = sum(part.samples // trainer.world_size * pl_module.images(part) for part in pl_module.parts)
            self._bar = open_bar(self.label, total, "image")
            pl_module.watcher = self._show

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Closes the bar, also after an error."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(self, part: Part, images: int) -> None:
        if self._bar is not None:
            doing = "attacks on" if part.attacked else "clean"
            self._bar.set_postfix_str(f"{doing} {part.split}", refresh=False)
            self._bar.update(images)
