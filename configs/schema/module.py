"""What is trained, on which objective."""

from dataclasses import dataclass, field
from typing import Literal

from configs.schema.checks import above, at_least, fraction


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


Objective = TeCoA | FARE
OBJECTIVES: dict[str, type] = {"tecoa": TeCoA, "fare": FARE}


@dataclass(frozen=True)
class RobustFinetuning:
    """Fine-tunes the image encoder on adversarial images; `attack` is the inner adversary."""

    kind: Literal["robust_finetuning"] = "robust_finetuning"
    objective: Objective = field(default_factory=TeCoA)


@dataclass(frozen=True)
class ContrastivePretraining:
    """Image-text contrastive training, both towers."""

    kind: Literal["contrastive_pretraining"] = "contrastive_pretraining"


Module = RobustFinetuning | ContrastivePretraining
MODULES: dict[str, type] = {"robust_finetuning": RobustFinetuning, "contrastive_pretraining": ContrastivePretraining}


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser and schedule, in steps of the optimiser."""

    kind: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-5
    weight_decay: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    momentum: float = 0.9  # of sgd
    warmup_steps: int = 0
    schedule: Literal["cosine", "constant"] = "cosine"
    fused: bool = False

    def __post_init__(self) -> None:
        above(0, lr=self.lr)
        at_least(0, weight_decay=self.weight_decay, warmup_steps=self.warmup_steps)
        fraction(beta1=self.beta1, beta2=self.beta2, momentum=self.momentum)
