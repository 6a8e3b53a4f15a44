"""Alignment-guided adversarial fine-tuning."""

from dataclasses import dataclass

from torch import Tensor

from lightning_modules.attacks.losses import cross_entropy
from lightning_modules.heads import Head, classify
from lightning_modules.objectives.objective import Needs, Parts, Views, combine


@dataclass(frozen=True, eq=False)
class AGFT:
    """Cross-entropy of adversarial images against the original model's softened answers on the clean ones, which the
    adversary raises too (Cui et al. 2026, arXiv 2603.29410). Labels are not used.

    head      compares images with texts; N = classes.
    scale     of the trained model's logits, over the head's own.
    softness  scale of the original model's logits, over that of the trained model's.
    """

    head: Head
    scale: float
    softness: float

    @property
    def needs(self) -> Needs:
        return Needs(reference=True)

    def target(self, labels: Tensor, answers: Tensor | None, reference: Tensor | None, texts: Tensor) -> Tensor:
        assert reference is not None
        return (self.softness * self._logits(reference, texts)).softmax(1)

    def inner(self, embeddings: Tensor, target: Tensor, texts: Tensor) -> Tensor:
        return cross_entropy(self._logits(embeddings, texts), target)

    def outer(self, views: Views, labels: Tensor, texts: Tensor) -> tuple[Tensor, Parts]:
        assert views.reference is not None
        target = self.target(labels, None, views.reference.pooled, texts)
        return combine(self.inner(views.adversarial.pooled, target, texts), None, 0.0)

    def _logits(self, embeddings: Tensor, texts: Tensor) -> Tensor:
        return self.scale * classify(self.head, embeddings, texts)
