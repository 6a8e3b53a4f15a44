"""The samples of a measurement, pass by pass."""

from collections.abc import Sequence
from typing import Any, Protocol

from lightning.pytorch import LightningDataModule, LightningModule

from configs.schema import ExperimentConfig
from datamodules.classification import ClassificationDataModule
from datamodules.loader import PlannedLoader
from experiments.trainer import build_tester
from lightning_modules.backbones import frozen


class Pass(Protocol):
    """Some samples of a split, evenly spread."""

    @property
    def split(self) -> str: ...

    @property
    def samples(self) -> int: ...


class ProbeData(LightningDataModule):
    """One loader a pass, on whichever rank the tester puts it."""

    def __init__(self, data: ClassificationDataModule, passes: Sequence[Pass], batch_size: int) -> None:
        super().__init__()
        self.data, self.passes, self.batch_size = data, passes, batch_size

    def test_dataloader(self) -> list[PlannedLoader]:
        """In the order of the passes."""
        self.data.trainer = self.trainer
        return [self.data.eval_loader(each.split, self.batch_size, each.samples) for each in self.passes]

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """As the data set's own datamodule."""
        return self.data.on_after_batch_transfer(batch, dataloader_idx)


def look(
    config: ExperimentConfig,
    title: str,
    module: LightningModule,
    data: ClassificationDataModule,
    passes: Sequence[Pass],
) -> None:
    """Has a module that measures see all passes, on every rank."""
    samples = ProbeData(data, passes, config.evaluation.batch_size)
    with frozen(module):  # an attack then takes less memory and time
        build_tester(config, title).test(module, datamodule=samples, verbose=False)
