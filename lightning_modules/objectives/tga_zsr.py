"""Text-guided attention for zero-shot robustness."""

from dataclasses import dataclass

from torch import Tensor

from configs.schema.objective import Attention
from lightning_modules.attacks.losses import cross_entropy
from lightning_modules.heads import Head, classify
from lightning_modules.objectives.attention import NEEDS, shifts
from lightning_modules.objectives.objective import Needs, Parts, Views, total


@dataclass(frozen=True, eq=False)
class TGAZSR:
    """Cross-entropy of adversarial images, while attention stays where the original model has it on the clean ones
    (Yu et al. 2024).

    head  compares images with texts; N = classes.
    """

    head: Head
    attention: Attention

    @property
    def needs(self) -> Needs:
        return NEEDS

    def target(self, labels: Tensor, answers: Tensor | None, reference: Tensor | None, texts: Tensor) -> Tensor:
        return labels

    def inner(self, embeddings: Tensor, target: Tensor, texts: Tensor) -> Tensor:
        return cross_entropy(classify(self.head, embeddings, texts), target)

    def outer(self, views: Views, labels: Tensor, texts: Tensor) -> tuple[Tensor, Parts]:
        adversarial = self.inner(views.adversarial.pooled, labels, texts).mean()
        return total({"adversarial": adversarial, **shifts(views, texts[labels][:, None], self.attention)})
