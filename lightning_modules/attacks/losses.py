"""What an adversary raises. Each loss maps outputs (B, K) and a target to float32 (B,), one value per sample."""

import torch.nn.functional as F
from torch import Tensor

from configs.errors import ConfigError
from lightning_modules.attacks.attack import LossFn

_TINY = 1e-12


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(logits)[label]; labels int64 (B,)."""
    return F.cross_entropy(logits.float(), labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Best other logit minus the label's: positive exactly where misclassified (Carlini & Wagner 2017)."""
    logits = logits.float()
    return _best_other(logits, labels) - _pick(logits, labels)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio (Croce & Hein 2020, eq. 6): the margin over the gap from the first to the third logit,
    so that neither shift nor scale of the logits matters.

    Raises:
        ConfigError: fewer than 3 classes.
    """
    if logits.shape[1] < 3:
        raise ConfigError(f"the DLR loss needs at least 3 classes, got {logits.shape[1]}; use the margin loss instead")
    top = logits.float().topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + _TINY)


def targeted_margin(logits: Tensor, pair: Tensor) -> Tensor:
    """Logit of the target class minus the label's; pair int64 (B, 2): (label, target class)."""
    logits = logits.float()
    return _pick(logits, pair[:, 1]) - _pick(logits, pair[:, 0])


def targeted_dlr(logits: Tensor, pair: Tensor) -> Tensor:
    """Targeted DLR (Croce & Hein 2020, eq. 7): the targeted margin over the first logit minus the mean of the third and
    fourth. With fewer than 4 classes there is no fourth, and the targeted margin itself is returned.

    Args:
        pair: int64 (B, 2): (label, target class).
    """
    if logits.shape[1] < 4:
        return targeted_margin(logits, pair)
    top = logits.float().topk(4, dim=1).values
    return targeted_margin(logits, pair) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + _TINY)


def embedding_l2(embeddings: Tensor, reference: Tensor) -> Tensor:
    """Squared distance of un-normalised embeddings (B, D), as FARE's adversary (Schlarmann et al. 2024, eq. 3).

    Its gradient is 0 where the two are equal: an attack on the reference model itself needs a random start.
    """
    return (embeddings.float() - reference.float()).square().sum(1)


def embedding_cosine(embeddings: Tensor, reference: Tensor) -> Tensor:
    """1 - cosine of embeddings (B, D), in [0, 2]."""
    return 1.0 - F.cosine_similarity(embeddings.float(), reference.float(), dim=1)


LOSSES: dict[str, LossFn] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}
"""Losses on logits and labels, by their names in the configuration."""


def _pick(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None]).squeeze(1)


def _best_other(logits: Tensor, labels: Tensor) -> Tensor:
    # max(dim) sends the gradient to one of several equal logits, amax would split it
    return logits.scatter(1, labels[:, None], float("-inf")).max(dim=1).values
