"""What a robust fine-tuning objective offers to the training step and to the adversary.

Shapes: B images, N class texts, D embedding dimensions, L image tokens.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

Parts = dict[str, Tensor]


@dataclass(frozen=True)
class Needs:
    """Which embeddings an objective makes use of, beside those of the adversary's images. Each costs a forward pass.

    clean                  the trained tower's of the clean images, with their gradient.
    answers                the trained tower's of the clean images before the attack, without gradient: what an
                           adversary moves away from.
    reference              the frozen original's of the clean images.
    reference_adversarial  the frozen original's of the adversary's images.
    tokens                 image tokens in all of the above.
    adversaries            how many adversaries attack each image, each with an inner loss of its own. The inner loss,
                           and in `outer` the adversarial view and the labels, have all images of the first adversary,
                           then all of the second, ...
    """

    clean: bool = False
    answers: bool = False
    reference: bool = False
    reference_adversarial: bool = False
    tokens: bool = False
    adversaries: int = 1


class Embedded(NamedTuple):
    """Images through a tower: `pooled` (B, D), un-normalised, and, where `Needs.tokens`, `tokens` (B, L, D)."""

    pooled: Tensor
    tokens: Tensor | None = None


class Views(NamedTuple):
    """One batch through the towers, as far as the objective's needs go; see `Needs`."""

    adversarial: Embedded
    clean: Embedded | None = None
    reference: Embedded | None = None
    reference_adversarial: Embedded | None = None


class Objective(Protocol):
    """A loss on image embeddings, with the inner loss that its adversary raises.

    Class texts come with each call, as the head has them (N, D): they may be trained, and may have been perturbed.
    Which texts they are is said by `wordings`.
    """

    @property
    def needs(self) -> Needs: ...

    def target(self, labels: Tensor, answers: Tensor | None, reference: Tensor | None, texts: Tensor) -> Tensor:
        """What the inner loss compares with, (B, ...), from labels int64 (B,) and embeddings (B, D) of clean images."""
        ...

    def inner(self, embeddings: Tensor, target: Tensor, texts: Tensor) -> Tensor:
        """What the adversary raises: un-normalised embeddings (B, D) -> float32 (B,)."""
        ...

    def outer(self, views: Views, labels: Tensor, texts: Tensor) -> tuple[Tensor, Parts]:
        """What training lowers: a scalar with gradient, and its detached parts by name."""
        ...


def total(parts: Parts) -> tuple[Tensor, Parts]:
    """The sum of 0-dim parts with their gradient, and the parts without."""
    return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}


def combine(adversarial: Tensor, clean: Tensor | None, clean_weight: float) -> tuple[Tensor, Parts]:
    """adversarial + clean_weight * clean, of per-sample losses (B,), averaged over the batch."""
    loss = adversarial.mean()
    parts = {"adversarial": loss.detach()}
    if clean is not None:
        parts["clean"] = clean.mean().detach()
        loss = loss + clean_weight * clean.mean()
    return loss, parts
