"""Whole batches, read and assembled where the loader wants them: in its workers, or in the main process."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from configs.errors import DataError
from datamodules.images import Transform
from datamodules.plan import EvalPlan, TrainPlan
from datamodules.reader import SplitReader
from datamodules.seeds import Purpose, stream

Batch = dict[str, Any]
REPLACEMENTS = 10  # draws until a readable sample stands in for an unreadable one


@dataclass(frozen=True)
class Fetched:
    """A batch on its way to the main process, with what went wrong. Without a batch, the last error is fatal: errors
    travel as text, because torch would wrap an exception in the worker's traceback."""

    batch: Batch | None
    errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Caption:
    """What is known of a picture beside its pixels: its position in the split, and what is stored with it."""

    index: int
    key: str
    label: int
    text: str | None


class Picture(NamedTuple):
    """One sample, decoded. `pixels` uint8 or float (H, W, 3)."""

    caption: Caption
    pixels: np.ndarray


@dataclass(frozen=True)
class Labelling:
    """What a batch says beside its pixels.

    ood: None leaves `is_ood` out; a split that is not made of the data set's classes has label -1.
    """

    foreign: bool = False
    ood: bool | None = None
    text: bool = False

    def __call__(self, pictures: Iterable[Picture], valid: np.ndarray) -> Batch:
        """The batch dict, with arrays where the loader has tensors: handing a worker's tensor over opens a file.

        Raises:
            DataError: the pictures differ in size or type.
        """
        image, captions = _stack(pictures, len(valid))
        batch: Batch = {
            # Stored as the decoder wrote it, (B, H, W, 3): the copy to planes is the main process's or the device's.
            "image": image.permute(0, 3, 1, 2),
            "label": np.array([-1 if self.foreign else caption.label for caption in captions], np.int64),
            "valid": valid,
            "index": np.array([caption.index for caption in captions], np.int64),
            "key": [caption.key for caption in captions],
        }
        if self.ood is not None:
            batch["is_ood"] = np.full(len(captions), self.ood)
        if self.text:
            batch["text"] = [caption.text for caption in captions]
        return batch


def _stack(pictures: Iterable[Picture], count: int) -> tuple[Tensor, list[Caption]]:
    """Takes `count` pictures one by one: held together, they would be new memory for each batch, and the faults of its
    pages cost a twentieth of the decoding."""
    captions: list[Caption] = []
    for caption, pixels in pictures:
        if not captions:
            stacked = _allocate((count, *pixels.shape), torch.from_numpy(np.empty(0, pixels.dtype)).dtype)
            rows = stacked.numpy()
        if pixels.dtype != rows.dtype:
            raise DataError(f"samples {captions[0].key!r} and {caption.key!r} differ in type: pack them apart")
        if pixels.shape != rows.shape[1:]:
            raise DataError(
                f"samples {captions[0].key!r} and {caption.key!r} differ in size ({_size(rows[0])} and "
                f"{_size(pixels)}): set data.image_size"
            )
        rows[len(captions)] = pixels
        captions.append(caption)
    return stacked, captions


def _allocate(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory to fill; a worker's is shared memory at once, which saves the copy on the way to the parent."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)


def _size(pixels: np.ndarray) -> str:
    return "x".join(str(side) for side in pixels.shape[1::-1])


@dataclass(frozen=True)
class Source:
    """Where pictures come from, and what becomes of them. One split, one rank."""

    reader: SplitReader
    transform: Transform
    labelling: Labelling
    rank: int = 0
    world: int = 1

    def picture(self, index: int, random: np.random.Generator | None = None) -> Picture:
        """The sample at this position. DataError, with key and shard, where it can't be read or decoded."""
        record = self.reader.read(index)
        try:
            pixels = self.transform(record.image, random)
        except DataError as error:
            raise DataError(
                f"{self.reader.where(index)}: {error}; replace it and pack the data set again, or, in training, "
                "tolerate some with data.max_errors"
            ) from error
        return Picture(Caption(index, record.key, record.label, record.text), pixels)


class TrainBatches(Dataset[Fetched]):
    """Training batches by (epoch, batch). Holds no position, so a worker can outlive an epoch and is never stale.

    A sample that can't be read is replaced by one drawn by (seed, epoch, batch, slot, attempt); what is random in a
    picture depends on (seed, epoch, sample) alone.
    """

    def __init__(self, source: Source, plan: TrainPlan, augment: bool, tolerant: bool) -> None:
        self.source = source
        self.plan = plan
        self.augment = augment
        self.tolerant = tolerant

    def __len__(self) -> int:
        return self.plan.batches

    def __getitem__(self, place: tuple[int, int]) -> Fetched:
        errors: list[str] = []
        indices = self.plan.batch(*place, self.source.rank, self.source.world)
        first = self.source.rank * len(indices)
        try:
            pictures = (self._picture(place, first + slot, int(index), errors) for slot, index in enumerate(indices))
            return Fetched(self.source.labelling(pictures, np.ones(len(indices), bool)), tuple(errors))
        except DataError as error:
            return Fetched(None, (*errors, str(error)))

    def _picture(self, place: tuple[int, int], slot: int, index: int, errors: list[str]) -> Picture:
        epoch, batch = place
        for attempt in range(REPLACEMENTS):
            random = stream(Purpose.AUGMENT, self.plan.seed, epoch, index) if self.augment else None
            try:
                return self.source.picture(index, random)
            except DataError as error:
                if not self.tolerant:
                    raise
                errors.append(str(error))
            draw = stream(Purpose.REPLACE, self.plan.seed, epoch, batch, slot, attempt)
            index = self.plan.substitute(index, draw)
        raise DataError(f"{REPLACEMENTS} samples in a row can't be read, the last one: {errors.pop()}")


class EvalBatches(Dataset[Fetched]):
    """Evaluation batches by (any epoch, batch). Nothing is random, and no error is tolerated."""

    def __init__(self, source: Source, plan: EvalPlan) -> None:
        self.source = source
        self.plan = plan

    def __len__(self) -> int:
        return self.plan.batches

    def __getitem__(self, place: tuple[int, int]) -> Fetched:
        indices, valid = self.plan.batch(place[1], self.source.rank)
        try:
            return Fetched(self.source.labelling((self.source.picture(int(index)) for index in indices), valid))
        except DataError as error:
            return Fetched(None, (str(error),))
