"""What an adversary raises. Each loss maps outputs (B, K) and a target to float32 (B,), one value per sample."""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from configs.errors import ConfigError, did_you_mean
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
    so that neither shift nor scale of the logits matters. With fewer than 3 classes there is no third, and the margin
    itself is returned.
    """
    if logits.shape[1] < 3:
        return margin(logits, labels)
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


def superclass_cross_entropy(ancestors: Tensor) -> LossFn:
    """Cross-entropy at a level of a class tree, whose probabilities are the sums of their leaves': a class's logit is
    the logsumexp of its leaves' logits. The prompts of the level have no part in it, so that the adversary works on the
    classifier whose leaves are judged; where level logits come from text of their own, use `cross_entropy` on them.
    It takes logits as the model scales them: those of raw cosines make logsumexp a mean rather than a maximum.

    Args:
        ancestors: int64 (K,), the class of each leaf at the level (`Tree.ancestors`), on the logits' device.

    Returns:
        A loss on leaf logits (B, K) and leaf labels int64 (B,).

    Raises:
        ConfigError: a level of one class, where nothing can be mistaken.
    """
    if not bool((ancestors != ancestors[:1]).any()):
        raise ConfigError("the superclass loss needs a level of at least 2 classes, got 1; choose a level further down")

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        own = ancestors[labels][:, None] == ancestors
        inside = logits.float().masked_fill(~own, float("-inf")).logsumexp(1)
        outside = logits.float().masked_fill(own, float("-inf")).logsumexp(1)
        return F.softplus(outside - inside)  # = -log of the class's share, and exact where that is nearly 1

    return loss


def score_loss(score: Callable[[Tensor], Tensor], goal: Literal["raise", "lower"]) -> LossFn:
    """Attacks an open-world score, higher = more in-distribution: `lower` has known images rejected, `raise` has
    unknown ones accepted. The loss's target is not used.

    Args:
        score: what the model puts out, such as cosines (B, K), -> (B,), differentiable; each sample by itself.
    """
    sign = {"raise": 1.0, "lower": -1.0}.get(goal)
    if sign is None:
        raise ConfigError(f"an attack on a score can't '{goal}' it; {did_you_mean(goal, ('raise', 'lower'))}")
    return lambda outputs, _target: sign * score(outputs).float()


LOSSES: dict[str, LossFn] = {
    "ce": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "targeted_margin": targeted_margin,
    "targeted_dlr": targeted_dlr,
}
"""Losses on logits by their names in the configuration and in results; `targeted_*` on pairs, the others on labels."""

EMBEDDING_LOSSES: dict[str, LossFn] = {"embedding_l2": embedding_l2, "embedding_cosine": embedding_cosine}
"""Losses on embeddings and those of the clean images."""

FALLBACKS = {"dlr": (3, "margin"), "targeted_dlr": (4, "targeted_margin")}
"""Losses that are another one below so many classes."""


def _pick(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None]).squeeze(1)


def _best_other(logits: Tensor, labels: Tensor) -> Tensor:
    # max(dim) sends the gradient to one of several equal logits, amax would split it
    return logits.scatter(1, labels[:, None], float("-inf")).max(dim=1).values
