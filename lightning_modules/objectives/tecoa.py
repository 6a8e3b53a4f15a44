"""Text-guided contrastive adversarial training."""

from dataclasses import dataclass

from torch import Tensor

from lightning_modules.attacks.losses import cross_entropy
from lightning_modules.heads import Head, classify
from lightning_modules.objectives.objective import Needs, Parts, Views, combine


@dataclass(frozen=True, eq=False)
class TeCoA:
    """Cross-entropy of scale * cosine(image, class texts) on adversarial images (Mao et al. 2023, eq. 3).

    head          compares images with texts; N = classes.
    clean_weight  weight of the same loss on clean images.
    """

    head: Head
    clean_weight: float = 0.0

    @property
    def needs(self) -> Needs:
        return Needs(clean=self.clean_weight > 0)

    def target(self, labels: Tensor, answers: Tensor | None, reference: Tensor | None, texts: Tensor) -> Tensor:
        return labels

    def inner(self, embeddings: Tensor, target: Tensor, texts: Tensor) -> Tensor:
        return cross_entropy(classify(self.head, embeddings, texts), target)

    def outer(self, views: Views, labels: Tensor, texts: Tensor) -> tuple[Tensor, Parts]:
        on_clean = self.inner(views.clean.pooled, labels, texts) if views.clean else None
        return combine(self.inner(views.adversarial.pooled, labels, texts), on_clean, self.clean_weight)
