"""Answering or abstaining: what a score is worth when answers below a threshold are withheld."""

import torch
from torch import Tensor


def aurc(scores: Tensor, right: Tensor) -> Tensor:
    """Area under the risk-coverage curve (Geifman et al. 2019): the mean over samples of the share of wrong answers
    among those that score at least as high. Lower is better; equal scores are answered together.

    Args:
        scores: (S,), not empty, higher = surer.
        right: bool (S,), whether each answer is right; an OOD sample's never is.

    Returns:
        float64 scalar in [0, 1].
    """
    ordered, order = scores.sort(descending=True)
    wrong = (~right[order]).double().cumsum(0)
    answered = torch.searchsorted(-ordered, -ordered, right=True)  # with all that are equal
    return (wrong[answered - 1] / answered).mean()


def h_score(accuracy: Tensor, auroc: Tensor) -> Tensor:
    """Harmonic mean of in-distribution accuracy and AUROC, 0 where both are.

    Fang et al. (2026) report an H-score and do not define it; this is a plausible reading, which agrees with the parts
    of it that they print.
    """
    total = accuracy + auroc
    return torch.where(total > 0, 2 * accuracy * auroc / total, torch.zeros_like(total))


def open_set_accuracy(right: Tensor, accepted: Tensor, is_ood: Tensor) -> Tensor:
    """Share of samples that are dealt with as they should be: in-distribution ones accepted and classified right, OOD
    ones rejected.

    Args:
        right, accepted, is_ood: bool (S,), not empty; `right` is not looked at where `is_ood`.

    Returns:
        float64 scalar.
    """
    return torch.where(is_ood, ~accepted, right & accepted).double().mean()
