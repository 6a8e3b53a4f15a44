"""Labelled images, and sets of what is not in-distribution."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from configs.errors import DataError
from configs.schema.data import OpenWorldData
from datamodules.batches import Labelling
from datamodules.classification import ClassificationDataModule
from datamodules.folder import DataFolder, open_folder

SPLIT = "test"  # what is read of a folder of its own


class OpenWorldDataModule(ClassificationDataModule):
    """Classification, with OOD splits for evaluation. Every batch says `is_ood`; OOD samples have label -1.

    An OOD split that `ood_folders` has a folder for is that folder's `test`; any other is a split of the data set.

    Raises:
        DataError: on setup, where an OOD split or its folder does not exist.
    """

    config: OpenWorldData

    @property
    def ood_splits(self) -> dict[str, list[str]]:
        """OOD splits by distance: near and far."""
        return {"near": list(self.config.near_ood), "far": list(self.config.far_ood)}

    @property
    def digest(self) -> str:
        """sha256 over the data set and what is read of other folders; the data set's own where there are none."""
        sets = {
            name: (self.concepts(name), folder.manifest.split(SPLIT).digest) for name, folder in self._folders.items()
        }
        if not sets:
            return self.manifest.digest
        return hashlib.sha256(json.dumps([self.manifest.digest, sets], sort_keys=True).encode()).hexdigest()

    def concepts(self, split: str) -> tuple[str, ...] | None:
        """What is on the pictures of a split. None where nothing says so: an OOD split has no names of its own, or is a
        folder with a single class, whose name is of the pictures (`images`) rather than of what is on them."""
        if split in self.config.ood_folders:
            folder, name = self._located(split)
            names = folder.manifest.split(name).class_names or folder.manifest.class_names
            return names if len(names) > 1 else None
        return self.manifest.split(split).class_names if self._is_ood(split) else super().concepts(split)

    def prepare_data(self) -> None:
        """Pack the data set where it is to be made, index foreign layouts, those of OOD sets included."""
        super().prepare_data()
        for name, folder in self.config.ood_folders.items():
            _open(name, Path(folder))

    def describe(self) -> dict[str, Any]:
        """The data plan in figures, with the samples of the OOD sets that have folders of their own."""
        told = super().describe()
        if told["packed"]:
            told["samples"] |= {split: self.samples(split) for split in self.config.ood_folders}
        return told

    @cached_property
    def _folders(self) -> dict[str, DataFolder]:
        return {name: _open(name, Path(folder)) for name, folder in self.config.ood_folders.items()}

    def _located(self, split: str) -> tuple[DataFolder, str]:
        return (self._folders[split], SPLIT) if split in self.config.ood_folders else super()._located(split)

    def _is_ood(self, split: str) -> bool:
        return split in (*self.config.near_ood, *self.config.far_ood)

    def _is_foreign(self, split: str) -> bool:
        return self._is_ood(split) or super()._is_foreign(split)

    def _labelling(self, split: str) -> Labelling:
        foreign = self._is_foreign(split)
        return Labelling(foreign=foreign, ood=foreign)

    def _check(self) -> None:
        super()._check()
        for split in (*self.config.near_ood, *self.config.far_ood):
            self.samples(split)


def _open(name: str, path: Path) -> DataFolder:
    key = f"data.ood_folders.{name}"
    if not path.exists():
        raise DataError(f"there is no data set at {path}: correct {key}, or leave '{name}' out")
    folder = open_folder(path, key)
    if SPLIT not in folder.manifest.splits:
        there = ", ".join(sorted(folder.manifest.splits))
        raise DataError(
            f"{path}, which {key} names, has no split '{SPLIT}' but {there}: pack one from ROOT/{SPLIT}/CLASS"
        )
    return folder
