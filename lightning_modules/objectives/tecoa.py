"""Text-guided contrastive adversarial training."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from lightning_modules.attacks.losses import cross_entropy
from lightning_modules.objectives.objective import Parts, combine


@dataclass(frozen=True, eq=False)
class TeCoA:
    """Cross-entropy of scale * cosine(image, class texts) on adversarial images (Mao et al. 2023, eq. 3).

    text_features  (N, D), unit norm, one per class.
    logit_scale    factor on the cosines, a number or a 0-dim tensor; never trained.
    clean_weight   weight of the same loss on clean images.
    """

    text_features: Tensor
    logit_scale: Tensor | float
    clean_weight: float = 0.0
    needs_reference: bool = False

    @property
    def needs_clean(self) -> bool:
        return self.clean_weight > 0

    def target(self, labels: Tensor, reference: Tensor | None) -> Tensor:
        return labels

    def logits(self, embeddings: Tensor) -> Tensor:
        """float32 (B, N) from un-normalised embeddings (B, D)."""
        return self.logit_scale * F.normalize(embeddings.float(), dim=1) @ self.text_features.float().T

    def inner(self, embeddings: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(self.logits(embeddings), target)

    def outer(self, adversarial: Tensor, clean: Tensor | None, target: Tensor) -> tuple[Tensor, Parts]:
        on_clean = self.inner(clean, target) if clean is not None and self.needs_clean else None
        return combine(self.inner(adversarial, target), on_clean, self.clean_weight)
