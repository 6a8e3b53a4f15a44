"""The progress of a measurement."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from experiments.bar import open_bar


class ProbeBar(Callback):
    """One bar over the batches of all probes, on rank 0, naming the probe that runs."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._bar: tqdm[Any] | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar."""
        if trainer.is_global_zero:
            self._bar = open_bar(self.label, int(sum(trainer.num_test_batches)), "batch")

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Names the probe."""
        if self._bar is not None and batch_idx == 0:
            tallies: Any = pl_module.tallies
            probe = tallies[dataloader_idx].probe
            self._bar.set_postfix_str(f"{probe.name} on {probe.split}", refresh=False)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Advances."""
        if self._bar is not None:
            self._bar.update(1)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Closes the bar, also after an error."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
