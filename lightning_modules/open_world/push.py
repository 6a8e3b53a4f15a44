"""Antibodies that images come too close to. Blockwise: no (images x antibodies) matrix outlives its block.

Shapes: B images, N antibodies, D dimensions; `points` and `antibodies` are unit vectors. An antibody's owner is its
class, or -1 where it belongs to none; one without a class counts among every class's own.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Pairing = Literal["own", "hardest", "all"]
_BLOCK = 2**24  # cosines at once, 64 MiB


@torch.no_grad()
def nearest(points: Tensor, antibodies: Tensor, owners: Tensor, classes: Tensor | None = None) -> Tensor:
    """int64 (B,): the antibody with the largest cosine; -1 where there is none.

    Args:
        owners: int64 (N,).
        classes: int64 (B,): only antibodies of this class and of none count; None: all of them.
    """
    best = torch.full((len(points),), -torch.inf, device=points.device)
    found = torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
    for start, cosines in _blocks(points, antibodies):
        if classes is not None:
            cosines = cosines.masked_fill(~_own(owners, classes, start, cosines.shape[1]), -torch.inf)
        value, place = cosines.max(dim=1)
        found = torch.where(value > best, place + start, found)
        best = torch.maximum(value, best)
    return found


def push(points: Tensor, antibodies: Tensor, owners: Tensor, labels: Tensor, margin: float, pairing: Pairing) -> Tensor:
    """(B,): max(0, cos - margin)^2, of the nearest antibody of the bank (`hardest`), or summed over the antibodies of
    the label and of no class (`own`) or over the whole bank (`all`). 0 where there is no antibody.

    The paper has the pair's term alone; which antibodies an image is paired with, and the sum, are ours.
    """
    if not len(antibodies):
        return points.sum(dim=1) * 0
    if pairing == "hardest":
        cosines = (points * antibodies[nearest(points, antibodies, owners)]).sum(dim=1)
        return (cosines - margin).clamp_min(0) ** 2
    pushes: Any = _SummedHinge.apply
    summed: Tensor = pushes(points, antibodies, owners, labels if pairing == "own" else None, margin)
    return summed


class _SummedHinge(torch.autograd.Function):
    """sum over antibodies of max(0, cos - margin)^2, and its gradient 2 sum max(0, cos - margin) a of the same pass."""

    @staticmethod
    def forward(
        context: Any, points: Tensor, antibodies: Tensor, owners: Tensor, classes: Tensor | None, margin: float
    ) -> Tensor:
        total, gradient = points.new_zeros(len(points)), torch.zeros_like(points)
        for start, cosines in _blocks(points, antibodies):
            hinge = (cosines - margin).clamp_min_(0)
            if classes is not None:
                hinge = hinge * _own(owners, classes, start, cosines.shape[1])
            total += hinge.square().sum(dim=1)
            gradient += 2 * hinge @ antibodies[start : start + cosines.shape[1]]
        context.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(context: Any, outer: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = context.saved_tensors
        return outer[:, None] * gradient, None, None, None, None


def _blocks(points: Tensor, antibodies: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The first antibody of each block, and cosines (B, block)."""
    size = max(1, _BLOCK // max(1, len(points)))
    for start in range(0, len(antibodies), size):
        yield start, points @ antibodies[start : start + size].T


def _own(owners: Tensor, classes: Tensor, start: int, count: int) -> Tensor:
    block = owners[start : start + count]
    return (block == classes[:, None]) | (block < 0)
