"""Choosing the constants on in-distribution images alone: those of held-out classes are the unknown."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor

from lightning_modules.metrics.ood import auroc
from lightning_modules.open_world.immunity import Immunity

ACCURACY_COST = 0.005  # of in-distribution accuracy, that a better AUROC may cost


@dataclass(frozen=True)
class Trial:
    """How one choice does: AUROC of S_DIS for images of the classes against those of held-out classes, and accuracy.

    Images of held-out classes are used rather than the text of held-out antibodies, whose AUROC rises with lambda
    whatever images do: on OpenMoji it is best (0.99) where that of real near-OOD images is worst, while held-out
    classes are within 0.01 of the latter near its best.
    """

    whitening: float
    margin: float
    strength: float
    lambda_inf: float
    auroc: float
    accuracy: float


@torch.no_grad()
def trials(
    immunity: Immunity,
    whitening: float,
    margin: float,
    strengths: Sequence[float],
    lambdas: Sequence[float],
    embeddings: Tensor,
    labels: Tensor,
) -> list[Trial]:
    """One for each strength and lambda.

    Args:
        immunity: trained with this whitening and margin, without the held-out classes and their antibodies.
        embeddings: images (M, D) that it was not trained on.
        labels: int64 (M,), -1 for those of held-out classes; there are some of both.
    """
    found, inside = [], labels >= 0
    for strength in strengths:
        weaker = immunity.weakened(strength)
        known, danger = weaker.terms(embeddings)
        accuracy = float((weaker.classify(embeddings[inside]) == labels[inside]).double().mean())
        for weight in lambdas:
            scores = known - weight * danger
            area = float(auroc(scores[inside], scores[~inside]))
            found.append(Trial(whitening, margin, strength, weight, area, accuracy))
    return found


def mean(folds: Sequence[Sequence[Trial]]) -> list[Trial]:
    """Of the same choices over several sets of held-out classes."""
    return [
        replace(same[0], auroc=fmean(each.auroc for each in same), accuracy=fmean(each.accuracy for each in same))
        for same in zip(*folds, strict=True)
    ]


def best(found: Sequence[Trial], zero_shot: float) -> Trial:
    """The largest AUROC among those whose accuracy is within ACCURACY_COST of that of the class texts, or of the best
    where none is; the first of equals."""
    wanted = min(zero_shot, max(trial.accuracy for trial in found)) - ACCURACY_COST
    return max((trial for trial in found if trial.accuracy >= wanted), key=lambda trial: trial.auroc)
