"""Bytes to batches. Knows nothing of models."""

from typing import TYPE_CHECKING

from configs.schema.data import ClassificationData, Data, ImageTextData, OpenWorldData

if TYPE_CHECKING:
    from datamodules.base import PlannedDataModule


def build_datamodule(
    config: Data, seed: int, accumulate: int = 1, validation_samples: int | None = None
) -> "PlannedDataModule":
    """The datamodule of this kind of data, see `PlannedDataModule`."""
    match config:
        case OpenWorldData():
            from datamodules.open_world import OpenWorldDataModule

            return OpenWorldDataModule(config, seed, accumulate, validation_samples)
        case ImageTextData():
            from datamodules.image_text import ImageTextDataModule

            return ImageTextDataModule(config, seed, accumulate, validation_samples)
        case ClassificationData():
            from datamodules.classification import ClassificationDataModule

            return ClassificationDataModule(config, seed, accumulate, validation_samples)
