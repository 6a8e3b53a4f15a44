"""Where the images of a batch lie in a class tree: one point for each class that has any."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from lightning_modules import ranks
from lightning_modules.geometry import PoincareBall


class Centres(NamedTuple):
    """The classes of one level: `points` (C, D) on the ball, and which of them the batch has images of, bool (C,)."""

    points: Tensor
    present: Tensor


def centres(
    ball: PoincareBall, points: Tensor, labels: Tensor, parents: Sequence[Tensor], sizes: Sequence[int]
) -> list[Centres]:
    """The Einstein midpoint of every class's images, level by level (Dong et al. 2026, eq. 8).

    A leaf's is that of its images, a parent's that of its children's midpoints: every child counts the same, however
    many images it has. Nothing here waits for the device: which classes are present stays a mask.

    Args:
        points: (B, D) on the ball.
        labels: int64 (B,), leaves.
        parents: per level but the last, int64 (classes,): each class's parent in the next level.
        sizes: how many classes each level has.

    Returns:
        One entry per level, leaves first.
    """
    levels = [Centres(ball.midpoint(points, labels, sizes[0]), _present(labels, sizes[0]))]
    for above, size in zip(parents, sizes[1:], strict=True):
        below = levels[-1]
        groups = torch.where(below.present, above, size)  # without images: to a group of their own, which is dropped
        midpoints = ball.midpoint(below.points, groups, size + 1)
        levels.append(Centres(midpoints[:size], _present(groups, size + 1)[:size]))
    return levels


def _present(groups: Tensor, size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.bool, device=groups.device).index_fill_(0, groups, True)


def gathered(points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Points and labels of all ranks in their order, with gradients that reach the rank that a point is from.

    Every rank must call it, with equally many samples. Without ranks they are returned as they are.
    """
    if ranks.position()[1] == 1:
        return points, labels
    together: tuple[Tensor, ...] = all_gather(points.contiguous())  # type: ignore[no-untyped-call]
    return torch.cat(together), ranks.gathered(labels)
