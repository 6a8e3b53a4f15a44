"""What every datamodule has in common: opening or packing the folder, planned loaders, exact resumption."""

import warnings
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule

from configs.errors import DataError
from configs.schema.data import Data
from datamodules.batches import Batch, EvalBatches, Labelling, Source, TrainBatches
from datamodules.folder import DataFolder, open_folder
from datamodules.images import Transform, to_float
from datamodules.loader import PlannedLoader
from datamodules.manifest import Manifest
from datamodules.plan import EvalPlan, TrainPlan, local_batch_size
from datamodules.reader import SplitReader
from datamodules.sources import build


class PlannedDataModule(LightningDataModule, ABC):
    """A data set by the plan. Its state is a count, so it is the same on every rank and for any number of ranks.

    Rank and world size are the attached trainer's, captured in the main process; without a trainer there is one rank.

    Args:
        config: which data, and how it is batched.
        seed: of the order and of what is random in a training picture.
        accumulate: batches per step of the optimiser; an epoch is made of whole steps.
        validation_samples: of the validation split, evenly spread; None is all.
    """

    def __init__(self, config: Data, seed: int, accumulate: int = 1, validation_samples: int | None = None) -> None:
        super().__init__()
        self.config: Data = config
        self.seed = seed
        self.accumulate = accumulate
        self.validation_samples = validation_samples
        self.folder = Path(config.folder)
        self._opened: DataFolder | None = None
        self._state: dict[str, Any] | None = None
        self._shift = 0  # batches between Lightning's count and the plan's, where the plan changed between epochs
        self._train_loader: PlannedLoader | None = None

    # Opening

    def prepare_data(self) -> None:
        """Pack the folder where it does not exist yet and the configuration says how. Index a foreign layout."""
        if self.config.pack is not None and not self.folder.exists():
            build(self.config.pack, self.folder, replace=False)
        open_folder(self.folder)

    def setup(self, stage: str | None = None) -> None:
        """Open the folder. DataError where shards are missing or have other sizes than the manifest says."""
        if self._opened is None:
            self._opened = open_folder(self.folder)
            self._check()

    @property
    def opened(self) -> DataFolder:
        """The data set, opened on first use."""
        self.setup()
        assert self._opened is not None
        return self._opened

    @property
    def manifest(self) -> Manifest:
        """What the data set consists of."""
        return self.opened.manifest

    @property
    def digest(self) -> str:
        """sha256 over all that can be read here."""
        return self.manifest.digest

    def samples(self, split: str) -> int:
        """Samples in a split. DataError where there is no such split."""
        folder, name = self._located(split)
        return folder.manifest.samples(name)

    def _located(self, split: str) -> tuple[DataFolder, str]:
        """The folder that a split lies in, and what it is called there."""
        return self.opened, split

    @abstractmethod
    def _check(self) -> None:
        """DataError where the data set does not fit this datamodule."""

    @abstractmethod
    def _check_split(self, split: str, reader: SplitReader) -> None:
        """DataError, naming the sample, where a split lacks what batches of it need."""

    @abstractmethod
    def _labelling(self, split: str) -> Labelling:
        """What batches of a split say beside their pixels."""

    # Training

    @cached_property
    def train_plan(self) -> TrainPlan:
        """The order of training. DataError where the split is smaller than one step of the optimiser."""
        shards = tuple(shard.samples for shard in self.manifest.split(self.config.train_split).shards)
        plan = TrainPlan(shards, self.manifest.digest, self.seed, self.config.batch_size, self.accumulate)
        return self._grouped(plan)

    def _grouped(self, plan: TrainPlan) -> TrainPlan:
        """The plan, with what the samples of a batch have in common where the kind of data knows such a thing."""
        return plan

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimiser per epoch, the same on every rank."""
        return self.train_plan.steps

    @property
    def errors(self) -> int:
        """Training samples replaced so far in this epoch, on this rank, because they could not be read."""
        return 0 if self._train_loader is None else self._train_loader.errors

    def train_dataloader(self) -> PlannedLoader:
        """Training batches of this rank, from where the loaded state left off."""
        plan, rank, world = self.train_plan, *self._place()
        local_batch_size(plan.batch_size, world)
        self._check_spread(plan, world)
        source = self._source(self.config.train_split, rank, world)
        batches = TrainBatches(source, plan, self.config.augment, tolerant=self.config.max_errors > 0)
        self._train_loader = PlannedLoader(batches, self.config, self.seed, self._consumed(plan))
        return self._train_loader

    def _check_spread(self, plan: TrainPlan, world: int) -> None:
        readers = world * max(self.config.workers, 1)
        if len(plan.shards) < readers:
            raise DataError(
                f"{self.folder} has {len(plan.shards)} training shards for {world} ranks x {self.config.workers} "
                f"workers = {readers} readers: lower data.workers to {len(plan.shards) // world}, or pack it again "
                f"with data.pack.shard_samples={plan.samples // readers} or less"
            )

    # Evaluation

    def val_dataloader(self) -> PlannedLoader:
        """The validation split, or what is wanted of it, every sample once."""
        split, wanted = self.config.val_split, self.validation_samples
        samples = None if wanted is None else min(wanted, self.samples(split))
        return self.eval_loader(split, self.config.batch_size, samples)

    def eval_loader(self, split: str, batch_size: int, samples: int | None = None) -> PlannedLoader:
        """Every sample of a split once, or `samples` of them, evenly spread; padded to equally many batches on every
        rank, where `valid` is False. The loader's `samples` is what the valid ones must add up to.

        Args:
            batch_size: over all ranks.
        """
        if samples is not None and samples < 1:
            raise DataError(f"can't evaluate {samples} samples of split {split!r}: ask for at least one")
        rank, world = self._place()
        plan = EvalPlan(self.samples(split), batch_size, world, samples)
        return PlannedLoader(EvalBatches(self._source(split, rank, world), plan), self.config, self.seed)

    def sample(self, split: str, count: int) -> Batch:
        """Samples of a split, evenly spread, in one batch on the host; `valid` is False beyond those that there are."""
        (batch,) = self.eval_loader(split, count, count)
        return self.on_after_batch_transfer(batch, 0)

    def _source(self, split: str, rank: int, world: int) -> Source:
        folder, name = self._located(split)
        reader = folder.reader(name)
        self._check_split(split, reader)
        return Source(reader, Transform(self.config.image_size), self._labelling(split), rank, world)

    def _place(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Pixels leave the loader as uint8, and become float32 in [0, 1] on the device."""
        return {**batch, "image": to_float(batch["image"])}

    # Resuming

    def state_dict(self) -> dict[str, Any]:
        """How many batches were consumed since the beginning of training, and of which plan."""
        plan = self.train_plan
        return {"consumed": self._processed(plan), "plan": plan.digest, "batches": plan.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after the batches that the state counts.

        Raises:
            DataError: the state is from the middle of an epoch of another plan.
        """
        self._state = dict(state_dict)
        self._shift = self._consumed(self.train_plan) - int(state_dict["consumed"])

    def _processed(self, plan: TrainPlan) -> int:
        # Lightning's `ready` counts a batch that an exception cut short as well, for good; `processed` does not.
        if self.trainer is None:
            return self._consumed(plan)
        total: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return int(total.processed) + self._shift

    def _consumed(self, plan: TrainPlan) -> int:
        if self._state is None:
            return 0
        consumed, batches = int(self._state["consumed"]), int(self._state["batches"])
        if self._state["plan"] == plan.digest:
            return consumed
        epochs, rest = divmod(consumed, batches)
        if rest:
            raise DataError(
                f"the checkpoint is from batch {rest} of {batches} of an epoch of another data plan (data set, seed, "
                "data.batch_size or trainer.accumulate changed): undo the change, or resume from the end of an epoch"
            )
        warnings.warn("the data plan changed since the checkpoint; the next epoch follows the new one", stacklevel=3)
        return epochs * plan.batches

    # Telling

    def describe(self) -> dict[str, Any]:
        """The data plan in figures, for a dry run. Nothing is packed for it."""
        if not self.folder.exists():
            source = None if self.config.pack is None else self.config.pack.source
            return {"folder": str(self.folder), "packed": False, "source": source}
        plan, (_, world) = self.train_plan, self._place()
        return {
            "folder": str(self.folder),
            "packed": True,
            "manifest": self.digest[:16],
            "samples": {name: split.samples for name, split in sorted(self.manifest.splits.items())},
            "shards": {name: len(split.shards) for name, split in sorted(self.manifest.splits.items())},
            "bytes": sum(split.bytes for split in self.manifest.splits.values()),
            "ranks": world,
            "batch per rank": local_batch_size(plan.batch_size, world),
            "batches per epoch and rank": plan.batches,
            "steps per epoch": plan.steps,
            "dropped per epoch": plan.dropped,
            "plan": plan.digest,
        }
