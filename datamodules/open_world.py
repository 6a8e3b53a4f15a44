"""Labelled images, and sets of what is not in-distribution."""

from configs.schema.data import OpenWorldData
from datamodules.batches import Labelling
from datamodules.classification import ClassificationDataModule


class OpenWorldDataModule(ClassificationDataModule):
    """Classification, with OOD splits for evaluation. Every batch says `is_ood`; OOD samples have label -1.

    Raises:
        DataError: on setup, where an OOD split does not exist.
    """

    config: OpenWorldData

    @property
    def ood_splits(self) -> dict[str, list[str]]:
        """OOD splits by distance: near and far."""
        return {"near": list(self.config.near_ood), "far": list(self.config.far_ood)}

    def _is_foreign(self, split: str) -> bool:
        return split in (*self.config.near_ood, *self.config.far_ood) or super()._is_foreign(split)

    def _labelling(self, split: str) -> Labelling:
        foreign = self._is_foreign(split)
        return Labelling(foreign=foreign, ood=foreign)

    def _check(self) -> None:
        super()._check()
        for split in (*self.config.near_ood, *self.config.far_ood):
            self.manifest.split(split)
