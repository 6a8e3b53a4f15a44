"""Images with captions."""

from configs.schema.data import ImageTextData
from datamodules.base import PlannedDataModule
from datamodules.batches import Labelling
from datamodules.reader import SplitReader


class ImageTextDataModule(PlannedDataModule):
    """Image-caption pairs for contrastive pretraining. Batches have `text`; `label` is -1 where a pair has none."""

    config: ImageTextData

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by label, where the pairs have labels."""
        return self.manifest.class_names

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompts with {c} for the class name."""
        return self.manifest.templates

    def _check(self) -> None:
        self.manifest.split(self.config.train_split)

    def _check_split(self, split: str, reader: SplitReader) -> None:
        reader.check_texts()

    def _labelling(self, split: str) -> Labelling:
        return Labelling(text=True)
