"""Attacks: what the adversary may do. One class a kind; `eps_255` and `step_255` are in 1/255 of the pixel range."""

from dataclasses import dataclass
from typing import Literal

from configs.errors import FieldError
from configs.schema.checks import above, at_least, fraction

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class NoAttack:
    """Clean pixels."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True)
class PGD:
    """Projected gradient ascent (Madry et al. 2018). Under L-inf FARE's own trainer is `momentum: 0`."""

    kind: Literal["pgd"] = "pgd"
    norm: Norm = "linf"
    eps_255: float = 8.0
    step_255: float = 2.0
    steps: int = 20
    restarts: int = 1
    momentum: float = 0.0
    random_start: bool = True
    loss: Literal["objective", "ce", "margin"] = "objective"  # objective: the training objective's own inner loss

    def __post_init__(self) -> None:
        at_least(0, eps_255=self.eps_255)
        above(0, step_255=self.step_255)
        at_least(1, restarts=self.restarts)
        fraction(momentum=self.momentum)
        if self.steps < 1:
            raise FieldError("steps", f"must be >= 1, got {self.steps}; use attack.kind=none for clean training")


@dataclass(frozen=True)
class APGD:
    """AutoPGD (Croce & Hein 2020): cross-entropy first, then targeted DLR on the survivors."""

    kind: Literal["apgd"] = "apgd"
    norm: Norm = "linf"
    eps_255: float = 8.0
    steps: int = 100
    restarts: int = 1
    targets: int = 9  # classes that the targeted stage aims at, best logits first; 0 = cross-entropy only

    def __post_init__(self) -> None:
        at_least(0, eps_255=self.eps_255, targets=self.targets)
        at_least(1, steps=self.steps, restarts=self.restarts)


Attack = NoAttack | PGD | APGD
ATTACKS: dict[str, type] = {"none": NoAttack, "pgd": PGD, "apgd": APGD}
