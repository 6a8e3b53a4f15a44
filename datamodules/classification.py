"""Labelled images."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.errors import DataError
from configs.schema.data import ClassificationData
from datamodules.base import PlannedDataModule
from datamodules.batches import Labelling
from datamodules.grouped import GroupedPlan, level_of
from datamodules.loader import PlannedLoader
from datamodules.manifest import check_class_names, read_lines
from datamodules.plan import EvalPlan, TrainPlan
from datamodules.reader import SplitReader


class ClassificationDataModule(PlannedDataModule):
    """Labelled images for fine-tuning and zero-shot evaluation.

    Raises:
        DataError: on setup, where class names repeat, there are none, or an override has another number of them.
    """

    config: ClassificationData
    trees: Mapping[str, Any] | None = None  # what `data.grouping` chooses from; None: the data set's own

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by label: data.class_names', or the data set's own."""
        return self._lines(self.config.class_names) or self.manifest.class_names

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompts with {c} for the class name: data.templates', or the data set's own."""
        return self._lines(self.config.templates) or self.manifest.templates

    def concepts(self, split: str) -> tuple[str, ...] | None:
        """What is on the pictures of a split; None where nothing says so."""
        return self.manifest.split(split).class_names or self.class_names

    def shown(self, split: str, samples: int) -> list[str] | None:
        """What is on samples of a split, evenly spread as those of `eval_loader`; None where nothing says so."""
        names = self.concepts(split)
        if names is None:
            return None
        folder, name = self._located(split)
        places, _ = EvalPlan(self.samples(split), samples, subset=samples).batch(0)
        return [names[label] for label in folder.reader(name).index.label[places]]

    def test_dataloader(self) -> PlannedLoader:
        """The test split, every sample once."""
        return self.eval_loader(self.config.test_split, self.config.batch_size)

    def describe(self) -> dict[str, Any]:
        """The data plan in figures, and what the samples of a batch have in common."""
        told = super().describe()
        if told["packed"] and isinstance(self.train_plan, GroupedPlan):
            told |= self.train_plan.describe()
        return told

    def _grouped(self, plan: TrainPlan) -> TrainPlan:
        if self.config.grouping is None:
            return plan
        reader = self.opened.reader(self.config.train_split)
        reader.check_labels(len(self.class_names))
        manifest = self.manifest if self.trees is None else replace(self.manifest, trees=dict(self.trees))
        level = level_of(manifest, self.config.grouping, self.class_names)
        return GroupedPlan.of(plan, level, reader.index.label, self.config.grouping.samples)

    def _lines(self, path: str | None) -> tuple[str, ...]:
        return () if path is None else read_lines(Path(path))

    def _check(self) -> None:
        names, own = self.class_names, self.manifest.class_names
        where = self.config.class_names or f"data set {self.manifest.name!r}"
        if not names:
            raise DataError(f"{where} has no class names: give data.class_names a file with one name a line")
        if own and len(names) != len(own):
            raise DataError(f"{where} has {len(names)} class names for {len(own)} classes: give one a class, in order")
        check_class_names(names, where)
        self._check_templates()

    def _check_templates(self) -> None:
        where = self.config.templates or f"data set {self.manifest.name!r}"
        if not self.templates:
            raise DataError(f"{where} has no templates: give data.templates a file with one a line, such as 'a {{c}}'")
        for template in self.templates:
            if "{c}" not in template:
                raise DataError(f"template {template!r} of {where} has no {{c}}: write it where the class name goes")

    def _is_foreign(self, split: str) -> bool:
        return self.manifest.split(split).class_names is not None

    def _check_split(self, split: str, reader: SplitReader) -> None:
        if not self._is_foreign(split):
            reader.check_labels(len(self.class_names))

    def _labelling(self, split: str) -> Labelling:
        return Labelling(foreign=self._is_foreign(split))
