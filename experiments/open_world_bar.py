"""The progress of an open-world evaluation."""

from lightning.pytorch import LightningModule, Trainer

from experiments.measuring_bar import MeasuringBar
from lightning_modules.detection import OpenWorldEvaluation
from lightning_modules.detection.clean_look import Part


class OpenWorldBar(MeasuringBar):
    """Over the images of all parts; an attacked image counts once for every attack on it."""

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar."""
        if trainer.is_global_zero and isinstance(pl_module, OpenWorldEvaluation):
            self._open(sum(part.samples // trainer.world_size * pl_module.images(part) for part in pl_module.parts))
            pl_module.watcher = self._show

    def _show(self, part: Part, images: int) -> None:
        self._advance(f"{'attacks on' if part.attacked else 'clean'} {part.split}", images)
