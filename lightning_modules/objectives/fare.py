"""Unsupervised adversarial fine-tuning of the image encoder."""

from dataclasses import dataclass

from torch import Tensor

from lightning_modules.attacks.losses import embedding_l2
from lightning_modules.objectives.objective import Needs, Parts, Views, combine


@dataclass(frozen=True)
class FARE:
    """Squared distance from adversarial embeddings to the frozen original's clean ones, un-normalised, summed over
    dimensions and averaged over the batch (Schlarmann et al. 2024, eq. 3). Labels and texts are not used.

    clean_weight  weight of the same distance on clean images, added to the adversarial one. The authors' code weighs
                  them w and 1 - w: that is w / (1 - w) here, up to the learning rate.
    """

    clean_weight: float = 0.0

    @property
    def needs(self) -> Needs:
        return Needs(clean=self.clean_weight > 0, reference=True)

    def target(self, labels: Tensor, answers: Tensor | None, reference: Tensor | None, texts: Tensor) -> Tensor:
        assert reference is not None
        return reference

    def inner(self, embeddings: Tensor, target: Tensor, texts: Tensor) -> Tensor:
        return embedding_l2(embeddings, target)

    def outer(self, views: Views, labels: Tensor, texts: Tensor) -> tuple[Tensor, Parts]:
        assert views.reference is not None
        target = views.reference.pooled
        on_clean = embedding_l2(views.clean.pooled, target) if views.clean else None
        return combine(embedding_l2(views.adversarial.pooled, target), on_clean, self.clean_weight)
