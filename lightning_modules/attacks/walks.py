"""Rows of tensors that come, go and change places together: samples that wait, and samples that are being attacked."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self, TypeVar

import torch
from torch import Tensor

_PARTS = 8


@dataclass
class Rows:
    """Every field is a tensor with one entry a row."""

    row: Tensor  # int64 (B,): the caller's number of the sample

    def __len__(self) -> int:
        return len(self.row)

    def select(self, rows: Tensor) -> Self:
        """The rows at these places, int64 (R,) or bool (B,); a copy."""
        return replace(self, **{each.name: getattr(self, each.name)[rows] for each in fields(self)})

    def part(self, first: int, end: int) -> Self:
        """The rows from one place to before another; views."""
        return replace(self, **{each.name: getattr(self, each.name)[first:end] for each in fields(self)})

    def put(self, places: Tensor, others: Self) -> None:
        """Other rows in the place of some of these, int64 (R,); in place, so that it costs no more than what comes."""
        seen: set[int] = set()
        for each in fields(self):
            held: Tensor = getattr(self, each.name)
            if held.data_ptr() in seen or not held.is_contiguous():
                held = held.clone(memory_format=torch.contiguous_format)  # two fields may have begun as one tensor
                setattr(self, each.name, held)
            seen.add(held.data_ptr())
            held.index_copy_(0, places, getattr(others, each.name))

    def keep(self, rows: Tensor) -> None:
        """These rows alone, int64 (R,); field by field, so that one at most is there twice."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name)[rows])

    def extend(self, others: Self) -> None:
        """Other rows behind these; field by field, as `keep`, and the others are used up."""
        for each in fields(self):
            setattr(self, each.name, torch.cat([getattr(self, each.name), vars(others).pop(each.name)]))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts, in order."""
        names = [each.name for each in fields(parts[0])]
        return replace(parts[0], **{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


@dataclass
class Samples(Rows):
    """What is to be attacked. B samples, K outputs."""

    clean: Tensor  # float32 (B, C, H, W) in [0, 1]
    target: Tensor  # (B, ...): what the loss and the judge compare with; labels int64 (B,) for targeted methods
    outputs: Tensor  # (B, K): the model's on `clean`; targeted methods rank the classes by it
    seeds: Tensor  # int64 (B,), see `noise.derive`
    trial: Tensor  # int64 (B,): which of the method's trials comes next; 0 at first


AnyRows = TypeVar("AnyRows", bound=Rows)


def take(waiting: deque[AnyRows], most: int) -> AnyRows:
    """The first rows of those that wait, at most so many and at least one; a copy, in memory of its own."""
    parts = []
    while waiting and most:
        rows = waiting.popleft()
        if len(rows) > most:
            waiting.appendleft(rows.part(most, len(rows)))
            rows = rows.part(0, most)
        parts.append(rows)
        most -= len(rows)
    return parts[0].join(parts)


def in_parts(step: Callable[..., Tensor], images: Tensor, *others: Tensor) -> Tensor:
    """Writes step(images, *others) over the images, some rows at a time: for steps that take the memory of many."""
    few = math.ceil(len(images) / _PARTS)
    for part, *rest in zip(*(torch.split(each, few) for each in (images, *others)), strict=True):
        part.copy_(step(part, *rest))
    return images


@dataclass
class Walks(Rows):
    """B trials on their way. A method adds what it keeps between two answers of the model."""

    clean: Tensor  # float32 (B, C, H, W)
    target: Tensor  # (B, ...)
    pixels: Tensor  # float32 (B, C, H, W): where the model is asked next; in [0, 1]
