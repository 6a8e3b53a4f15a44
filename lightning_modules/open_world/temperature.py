"""How sure a classifier should be: one scalar that its logits are divided by."""

import math

import torch
from torch import Tensor

LIMIT = 1000.0  # of the temperature, and of its inverse: where all samples are right the likelihood has no maximum
HALVINGS = 50


@torch.no_grad()
def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature of the largest likelihood (Guo et al. 2017, section 4.2).

    The negative log likelihood is convex in 1/T. Its slope there is the mean logit that the posterior expects less the
    mean logit of the labels, whose root is found by bisection of log 1/T (ours).

    Args:
        logits: (M, K), of samples that nothing was trained on.
        labels: int64 (M,), one at least.
    """
    logits = logits.double()
    right = logits.gather(1, labels[:, None]).mean()
    low, high = -math.log(LIMIT), math.log(LIMIT)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        expected = ((logits * math.exp(middle)).softmax(dim=1) * logits).sum(dim=1).mean()
        low, high = (middle, high) if expected < right else (low, middle)
    return math.exp(-(low + high) / 2)
