"""What is trained, on which objective."""

from dataclasses import dataclass, field
from typing import Literal

from configs.schema.checks import above, at_least, fraction
from configs.schema.objective import Objective, TeCoA


@dataclass(frozen=True)
class RobustFinetuning:
    """Fine-tunes the image encoder on adversarial images; `attack` is the inner adversary."""

    kind: Literal["robust_finetuning"] = "robust_finetuning"
    objective: Objective = field(default_factory=TeCoA)


@dataclass(frozen=True)
class ContrastivePretraining:
    """Image-text contrastive training, both towers."""

    kind: Literal["contrastive_pretraining"] = "contrastive_pretraining"


@dataclass(frozen=True)
class NoFinetuning:
    """The model stays as it is; a vaccination may follow."""

    kind: Literal["none"] = "none"


Module = RobustFinetuning | ContrastivePretraining | NoFinetuning
MODULES: dict[str, type] = {
    "robust_finetuning": RobustFinetuning,
    "contrastive_pretraining": ContrastivePretraining,
    "none": NoFinetuning,
}


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
