"""Accuracy, at the leaves or at a level of a tree, and the number of samples behind it."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class Count(Metric):
    """How many valid samples there were, int64."""

    full_state_update = False
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, valid: Tensor) -> None:
        """Valid bool (B,), False on padding."""
        self.total += valid.sum()

    def compute(self) -> Tensor:
        return self.total


class Accuracy(Metric):
    """Share of valid samples whose predictions are the label; at a level of a tree, whose ancestors there are equal.

    `compute` returns a float64 scalar, NaN where there were no samples.

    Args:
        ancestors: int64 (leaves,), each leaf's class at the level (`Tree.ancestors`); None compares leaves.
    """

    full_state_update = False
    correct: Tensor
    total: Tensor
    ancestors: Tensor | None

    def __init__(self, ancestors: Tensor | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("correct", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")
        self.register_buffer("ancestors", ancestors, persistent=False)

    def update(self, predictions: Tensor, labels: Tensor, valid: Tensor) -> None:
        """Leaf indices int64 (B,), or (A, B): A predictions of each sample, all of which must be right, as robust
        accuracy has it; -1 is right at no level. Labels (B,); valid bool (B,), False on padding, whose labels are not
        looked at."""
        predictions, labels = predictions[..., valid], labels[valid]
        answered = predictions >= 0
        if self.ancestors is not None:
            predictions, labels = self.ancestors[predictions], self.ancestors[labels]
        right = (predictions == labels) & answered
        self.correct += (right.all(dim=0) if right.ndim == 2 else right).sum()
        self.total += len(labels)

    def compute(self) -> Tensor:
        return self.correct.double() / self.total
