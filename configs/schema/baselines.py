"""Objectives of robust fine-tuning on leaf classes alone. One class an objective."""

from dataclasses import dataclass, field
from typing import Literal

from configs.schema.checks import above, at_least


@dataclass(frozen=True)
class TeCoA:
    """Text-guided contrastive adversarial training (Mao et al. 2023): cross-entropy of adversarial images."""

    kind: Literal["tecoa"] = "tecoa"
    logit_scale: float | None = None  # fixed scale of the cosine; null: the model's own (FARE's repository fixes 100)
    clean_weight: float = 0.0  # weight of the same loss on clean images

    def __post_init__(self) -> None:
        above(0, logit_scale=self.logit_scale)
        at_least(0, clean_weight=self.clean_weight)


@dataclass(frozen=True)
class FARE:
    """Unsupervised adversarial fine-tuning (Schlarmann et al. 2024): squared distance to the original embedding."""

    kind: Literal["fare"] = "fare"
    clean_weight: float = 0.0  # weight of the same distance on clean images

    def __post_init__(self) -> None:
        at_least(0, clean_weight=self.clean_weight)


@dataclass(frozen=True)
class PMGAFT:
    """Pre-trained model guided adversarial fine-tuning (Wang et al. 2024): cross-entropy, and two divergences.

    reference_weight  of the divergence of adversarial answers from the original model's on the same images.
    clean_weight      of their divergence from the trained model's own on the clean images. The authors' code sums over
                      the batch where this takes the mean, as their paper does: as it stands it has the batch size for
                      both weights.
    temperature       of the cosines, in all three terms and for the adversary; null: the model's own. The authors' code
                      has 1 (raw cosines).
    """

    kind: Literal["pmg_aft"] = "pmg_aft"
    reference_weight: float = 1.0
    clean_weight: float = 1.0
    temperature: float | None = None

    def __post_init__(self) -> None:
        at_least(0, reference_weight=self.reference_weight, clean_weight=self.clean_weight)
        above(0, temperature=self.temperature)


@dataclass(frozen=True)
class AGFT:
    """Alignment-guided adversarial fine-tuning (Cui et al. 2026): the original model's softened answers are the labels.

    scale     of the trained model's logits, over the model's own scale. The authors train OpenAI's CLIP, whose scale is
              100, with 180.
    softness  scale of the original model's logits, over that of the trained model's.
    """

    kind: Literal["agft"] = "agft"
    scale: float = 1.8
    softness: float = 0.4

    def __post_init__(self) -> None:
        above(0, scale=self.scale, softness=self.softness)


@dataclass(frozen=True)
class Attention:
    """Maps of where a picture's class is, held where the original model has them on clean images.

    adversarial_weight  of how far the maps of adversarial images are away.
    clean_weight        of how far the trained model's maps of clean images are away.
    normalise           what has length 1 before tokens and texts are multiplied: the features of a token, as in
                        cosines, or a feature over the tokens and the embedding of a picture, as the authors' code has
                        it, which gave the published numbers.
    map_size            pixels a side at which maps are compared; distances, and so the weights, grow with it.
    """

    adversarial_weight: float = 0.08
    clean_weight: float = 0.05
    normalise: Literal["features", "tokens"] = "tokens"
    map_size: int = 224

    def __post_init__(self) -> None:
        at_least(0, adversarial_weight=self.adversarial_weight, clean_weight=self.clean_weight)
        at_least(1, map_size=self.map_size)


@dataclass(frozen=True)
class TGAZSR:
    """Text-guided attention for zero-shot robustness (Yu et al. 2024): cross-entropy, while attention stays."""

    kind: Literal["tga_zsr"] = "tga_zsr"
    attention: Attention = field(default_factory=Attention)


@dataclass(frozen=True)
class SAFT:
    """Semantics-aware adversarial fine-tuning (arXiv 2602.12461): each class is an ensemble of descriptions.

    descriptions  a YAML file, `class: [description, ...]`, with as many for each class; paths are relative to where the
                  run is started. configs/descriptions/openmoji.yaml is one.
    ensemble      what is averaged over the descriptions: their similarities to an image, as in the paper, or the
                  cross-entropies of as many classifications, as in the authors' code.
    attention     as of TGA-ZSR, averaged over the descriptions.
    """

    kind: Literal["saft"] = "saft"
    descriptions: str = "???"
    ensemble: Literal["similarities", "losses"] = "similarities"
    attention: Attention = field(default_factory=Attention)


@dataclass(frozen=True)
class TRADES:
    """Clean cross-entropy, plus the divergence of adversarial answers from clean ones (Zhang et al. 2019).

    weight  of the divergence, 1 / lambda; the authors have 6 on CIFAR-10.
    """

    kind: Literal["trades"] = "trades"
    weight: float = 6.0

    def __post_init__(self) -> None:
        above(0, weight=self.weight)
