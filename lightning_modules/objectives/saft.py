"""Semantics-aware adversarial fine-tuning."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from configs.schema.objective import SAFT as Config
from lightning_modules.attacks.losses import cross_entropy
from lightning_modules.heads import Head, classify
from lightning_modules.objectives.attention import NEEDS, shifts
from lightning_modules.objectives.objective import Needs, Parts, Views, total


@dataclass(frozen=True, eq=False)
class SAFT:
    """The adversary leads images away from an ensemble of descriptions of their class instead of one prompt, and
    training leads them back, with attention held as in TGA-ZSR (arXiv 2602.12461). K class texts are followed by M
    descriptions of the first class, M of the second, ...; zero-shot classification is by the class texts.

    head     compares images with texts.
    classes  K.
    """

    config: Config
    head: Head
    classes: int

    @property
    def needs(self) -> Needs:
        return NEEDS

    def target(self, labels: Tensor, answers: Tensor | None, reference: Tensor | None, texts: Tensor) -> Tensor:
        return labels

    def inner(self, embeddings: Tensor, target: Tensor, texts: Tensor) -> Tensor:
        descriptions = texts[self.classes :]
        logits = classify(self.head, embeddings, descriptions).view(len(target), self.classes, -1)
        if self.config.ensemble == "similarities":
            return cross_entropy(logits.mean(2), target)
        repeated = target[:, None].expand(-1, logits.shape[2])
        return F.cross_entropy(logits, repeated, reduction="none").mean(1)

    def outer(self, views: Views, labels: Tensor, texts: Tensor) -> tuple[Tensor, Parts]:
        adversarial = self.inner(views.adversarial.pooled, labels, texts).mean()
        descriptions = texts[self.classes :].view(self.classes, -1, texts.shape[1])
        return total({"adversarial": adversarial, **shifts(views, descriptions[labels], self.config.attention)})
