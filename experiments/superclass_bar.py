"""The progress of a superclass matrix."""

from lightning.pytorch import LightningModule, Trainer

from experiments.measuring_bar import MeasuringBar
from lightning_modules.superclass import SuperclassEvaluation


class SuperclassBar(MeasuringBar):
    """Over the adversarial images of all attacks on all levels, naming the last of both."""

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar."""
        if trainer.is_global_zero and isinstance(pl_module, SuperclassEvaluation):
            self._open(pl_module.samples // trainer.world_size * max(len(pl_module.aimed), 1))
            pl_module.watcher = self._advance
