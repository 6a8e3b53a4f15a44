"""Rows of tensors that come, go and change places together: samples that wait, and samples that are being attacked."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass
class Rows:
    """Every field is a tensor with one entry a row."""

    row: Tensor  # int64 (B,): the caller's number of the sample

    def __len__(self) -> int:
        return len(self.row)

    def select(self, rows: Tensor) -> Self:
        """The rows at these places, int64 (R,) or bool (B,); a copy."""
        return replace(self, **{each.name: getattr(self, each.name)[rows] for each in fields(self)})

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


@dataclass
class Walks(Rows):
    """B trials on their way. A method adds what it keeps between two answers of the model."""

    clean: Tensor  # float32 (B, C, H, W)
    target: Tensor  # (B, ...)
    pixels: Tensor  # float32 (B, C, H, W): where the model is asked next; in [0, 1]
