"""Accuracy on clean images, traded against answers that no adversary changes."""

from dataclasses import dataclass

from torch import Tensor

from lightning_modules.attacks.losses import cross_entropy
from lightning_modules.heads import Head, classify
from lightning_modules.objectives.divergence import divergence
from lightning_modules.objectives.objective import Needs, Parts, Views, total


@dataclass(frozen=True, eq=False)
class TRADES:
    """Cross-entropy of clean images, plus the divergence of the answers to adversarial ones from those to clean ones,
    which the adversary raises (Zhang et al. 2019, arXiv 1901.08573). Both answers are trained. The inner loss and its
    gradient are 0 at the clean image: the attack needs a random start.

    head    compares images with texts; N = classes.
    weight  of the divergence: 1 / lambda.
    """

    head: Head
    weight: float

    @property
    def needs(self) -> Needs:
        return Needs(clean=True, answers=True)

    def target(self, labels: Tensor, answers: Tensor | None, reference: Tensor | None, texts: Tensor) -> Tensor:
        assert answers is not None
        return classify(self.head, answers, texts)

    def inner(self, embeddings: Tensor, target: Tensor, texts: Tensor) -> Tensor:
        return divergence(classify(self.head, embeddings, texts), target)

    def outer(self, views: Views, labels: Tensor, texts: Tensor) -> tuple[Tensor, Parts]:
        assert views.clean is not None
        clean = classify(self.head, views.clean.pooled, texts)
        apart = divergence(classify(self.head, views.adversarial.pooled, texts), clean)
        return total({"clean": cross_entropy(clean, labels).mean(), "adversarial": self.weight * apart.mean()})
