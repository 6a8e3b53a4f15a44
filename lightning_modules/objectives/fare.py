"""Unsupervised adversarial fine-tuning of the image encoder."""

from dataclasses import dataclass

from torch import Tensor

from lightning_modules.attacks.losses import embedding_l2
from lightning_modules.objectives.objective import Parts, combine


@dataclass(frozen=True)
class FARE:
    """Squared distance from adversarial embeddings to the frozen original's clean ones, un-normalised, summed over
    dimensions and averaged over the batch (Schlarmann et al. 2024, eq. 3). Labels and texts are not used.

    clean_weight  weight of the same distance on clean images, added to the adversarial one. The authors' code weighs
                  them w and 1 - w: that is w / (1 - w) here, up to the learning rate.
    """

    clean_weight: float = 0.0
    needs_reference: bool = True

    @property
    def needs_clean(self) -> bool:
        return self.clean_weight > 0

    def target(self, labels: Tensor, reference: Tensor | None) -> Tensor:
        if reference is None:
            raise ValueError("FARE's target is the frozen original's embedding of the clean pixels, and none was given")
        return reference.detach()

    def inner(self, embeddings: Tensor, target: Tensor) -> Tensor:
        return embedding_l2(embeddings, target)

    def outer(self, adversarial: Tensor, clean: Tensor | None, target: Tensor) -> tuple[Tensor, Parts]:
        on_clean = self.inner(clean, target) if clean is not None and self.needs_clean else None
        return combine(self.inner(adversarial, target), on_clean, self.clean_weight)
