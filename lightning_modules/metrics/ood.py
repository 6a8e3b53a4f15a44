"""Detection metrics, exact with ties: scores are grouped at equal values, never broken by their order in memory."""

import math

import torch
from torch import Tensor


def auroc(positives: Tensor, negatives: Tensor) -> Tensor:
    """P(positive > negative) + P(positive = negative) / 2 over all pairs: the area under the ROC curve.

    Args:
        positives, negatives: scores (P,) and (N,), neither empty.

    Returns:
        float64 scalar in [0, 1].
    """
    ordered = negatives.sort().values
    below = torch.searchsorted(ordered, positives.contiguous())
    not_above = torch.searchsorted(ordered, positives.contiguous(), right=True)
    return (below + not_above).sum().double() / (2 * len(positives) * len(negatives))


def fpr_at_recall(positives: Tensor, negatives: Tensor, recall: float = 0.95) -> Tensor:
    """Share of negatives at or above the highest threshold that keeps at least `recall` of the positives.

    An operating point of the ROC curve, not an interpolation. Float64 scalar; arguments as for `auroc`.
    """
    kept = max(math.ceil(recall * len(positives) - 1e-9), 1)
    threshold = positives.sort(descending=True).values[kept - 1]
    return (negatives >= threshold).double().mean()


def aupr(positives: Tensor, negatives: Tensor) -> Tensor:
    """Average precision: the mean, over positives, of the precision at a threshold equal to their own score.

    The step-wise area under the precision-recall curve, not interpolated. Float64 scalar; arguments as for `auroc`.
    """
    true = len(positives) - torch.searchsorted(positives.sort().values, positives.contiguous())
    false = len(negatives) - torch.searchsorted(negatives.sort().values, positives.contiguous())
    return (true.double() / (true + false)).mean()
