"""Seeded draws of samples, group by group; the same samples in the same order give the same draw on every rank."""

import torch
from torch import Tensor

from lightning_modules.attacks import noise


def shots(labels: Tensor, count: int, seed: int) -> Tensor:
    """Places int64 of `count` samples of each class, or of all that it has, in ascending order; labels int64 (M,)."""
    order = _shuffled(labels, seed)
    ordered = labels[order]
    first = torch.searchsorted(ordered, ordered)
    return order[torch.arange(len(order)) - first < count].sort().values


def spread(groups: Tensor, share: float, seed: int) -> Tensor:
    """bool (N,): a share of all samples, drawn at random within groups and spread evenly over them, also where a group
    is too small to give a whole sample."""
    order = _shuffled(groups, seed)
    steps = (torch.arange(len(order) + 1, dtype=torch.float64) * share + 0.5).floor()
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    chosen[order] = steps.diff() > 0
    return chosen


def _shuffled(groups: Tensor, seed: int) -> Tensor:
    """Places, sorted by group, in random order within each."""
    drawn = noise.derive(seed, torch.arange(len(groups))).argsort()
    return drawn[groups[drawn].argsort(stable=True)]
