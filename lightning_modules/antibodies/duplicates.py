"""Texts that say the same to the model."""

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 256


def near_duplicates(features: Tensor, threshold: float) -> list[int | None]:
    """For each of N unit vectors (N, D) an earlier one that is no duplicate itself and has at least this cosine with
    it; None where there is none. In order, and with no more than BLOCK x N cosines in memory."""
    first: list[int | None] = [None] * len(features)
    originals: list[int] = []
    for start in range(0, len(features), BLOCK):
        block = features[start : start + BLOCK]
        best, nearest = _best(block, features[originals])
        for row, (cosine, place) in enumerate(zip(best, nearest, strict=True)):
            if cosine >= threshold:
                first[start + row] = originals[place]
        for earlier, later in _pairs(block, threshold):
            if first[start + earlier] is None and first[start + later] is None:
                first[start + later] = start + earlier
        originals += [start + row for row in range(len(block)) if first[start + row] is None]
    return first


def _best(block: Tensor, originals: Tensor) -> tuple[Sequence[float], Sequence[int]]:
    """Of each row, the largest cosine with one of the originals, and which."""
    if not len(originals):
        return [-1.0] * len(block), [0] * len(block)
    largest = (block @ originals.T).max(dim=1)
    return largest.values.tolist(), largest.indices.tolist()


def _pairs(block: Tensor, threshold: float) -> list[list[int]]:
    """(earlier, later) in the block, earlier ones first."""
    alike = torch.triu(block @ block.T >= threshold, diagonal=1)
    return alike.nonzero().tolist()
