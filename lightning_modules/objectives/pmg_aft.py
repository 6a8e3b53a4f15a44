"""Adversarial fine-tuning that the pre-trained model guides."""

from dataclasses import dataclass

from torch import Tensor

from lightning_modules.attacks.losses import cross_entropy
from lightning_modules.heads import Head, classify
from lightning_modules.objectives.divergence import divergence
from lightning_modules.objectives.objective import Needs, Parts, Views, total


@dataclass(frozen=True, eq=False)
class PMGAFT:
    """Cross-entropy of adversarial images, plus the divergences of their answers from the original model's on the same
    images and from the trained model's on the clean ones (Wang et al. 2024, arXiv 2401.04350). As in the authors' code
    a divergence is KL(target || adversarial), and the clean answers are trained with the adversarial ones.

    head              compares images with texts; N = classes.
    reference_weight  of the divergence from the original model.
    clean_weight      of the divergence from the clean answers.
    """

    head: Head
    reference_weight: float = 1.0
    clean_weight: float = 1.0

    @property
    def needs(self) -> Needs:
        return Needs(clean=self.clean_weight > 0, reference_adversarial=self.reference_weight > 0)

    def target(self, labels: Tensor, answers: Tensor | None, reference: Tensor | None, texts: Tensor) -> Tensor:
        return labels

    def inner(self, embeddings: Tensor, target: Tensor, texts: Tensor) -> Tensor:
        return cross_entropy(classify(self.head, embeddings, texts), target)

    def outer(self, views: Views, labels: Tensor, texts: Tensor) -> tuple[Tensor, Parts]:
        logits = classify(self.head, views.adversarial.pooled, texts)
        parts = {"adversarial": cross_entropy(logits, labels).mean()}
        if views.reference_adversarial is not None:
            original = classify(self.head, views.reference_adversarial.pooled, texts)
            parts["reference"] = self.reference_weight * divergence(logits, original).mean()
        if views.clean is not None:
            clean = classify(self.head, views.clean.pooled, texts)
            parts["clean"] = self.clean_weight * divergence(logits, clean).mean()
        return total(parts)
