"""Sums over training embeddings, in float64, a block of them at a time."""

import torch
from torch import Tensor

from lightning_modules.open_world.score import exact

BLOCK = 2**14  # embeddings


def second_moment(features: Tensor) -> Tensor:
    """Mean (D, D) of x x^T over features (M, D)."""
    total = exact(features.new_zeros(features.shape[1], features.shape[1]))
    for block in torch.split(features, BLOCK):
        total += exact(block).T @ exact(block)
    return total / len(features)


def class_means(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Means (C, D) of the C classes that occur in labels (M,), and each feature's place among them, int64 (M,)."""
    _, places, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    totals = exact(features.new_zeros(len(counts), features.shape[1]))
    for block, rows in zip(torch.split(features, BLOCK), torch.split(places, BLOCK), strict=True):
        totals.index_add_(0, rows, exact(block))
    return totals / counts[:, None], places
