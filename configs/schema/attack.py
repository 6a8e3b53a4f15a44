"""Attacks: what the adversary may do. One class a kind.

Radii `eps_255` and steps `step_255` are in 1/255 of the pixel range, under every norm: an L2 radius of 0.5 is 127.5.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from configs.errors import FieldError
from configs.schema.auto_attack import ENSEMBLES, MEMBERS, AutoAttack, Version
from configs.schema.checks import radius
from configs.schema.single_attack import APGD, CW, FAB, PGD, AnyNorm, Norm, SingleAttack, Square, TargetedAPGD

__all__ = [
    "APGD", "ATTACKS", "CW", "EMBEDDING_LOSSES", "ENSEMBLES", "FAB", "MEMBERS", "PGD", "AnyNorm", "Attack",
    "AutoAttack", "NoAttack", "Norm", "SingleAttack", "Square", "TargetedAPGD", "TorchAttack", "Version", "labelless",
]  # fmt: skip


@dataclass(frozen=True)
class NoAttack:
    """Clean pixels."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True)
class TorchAttack:
    """Any attack of the torchattacks library by its class name, repaired where that is possible from outside.

    norm, eps_255  the budget that its images are projected on, and its own `eps` where it takes one.
    arguments      its other arguments by name, such as {steps: 10, decay: 1.0}.
    """

    kind: Literal["torchattacks"] = "torchattacks"
    name: str = "MIFGSM"
    norm: Norm = "linf"
    eps_255: float = 8.0
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        radius(self.norm, self.eps_255)
        if self.name == "AutoAttack":
            raise FieldError(
                "name",
                "AutoAttack is refused, because torchattacks gives its parts 10 steps where AutoAttack has 100, and "
                "aims at all other classes instead of 9; use attack.kind=auto_attack",
            )
        if "eps" in self.arguments:
            raise FieldError("arguments", "hold eps, which is in [0, 1] there; set eps_255 instead")


EMBEDDING_LOSSES = ("embedding_l2", "embedding_cosine")
"""Losses of attacks that know no labels, by their names."""

Attack = NoAttack | PGD | APGD | TargetedAPGD | FAB | Square | CW | AutoAttack | TorchAttack
ATTACKS: dict[str, type] = {
    "none": NoAttack,
    "pgd": PGD,
    "apgd": APGD,
    "apgd_t": TargetedAPGD,
    "fab": FAB,
    "square": Square,
    "cw": CW,
    "auto_attack": AutoAttack,
    "torchattacks": TorchAttack,
}


def labelless(attack: Attack) -> bool:
    """Whether the attack compares embeddings, and neither needs a label nor knows whether it has reached a goal."""
    return getattr(attack, "loss", None) in EMBEDDING_LOSSES
