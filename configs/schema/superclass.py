"""Attacks on the superclasses, and what each of them does to every other level."""

from dataclasses import dataclass, field

from configs.errors import FieldError
from configs.schema.attack import Attack, NoAttack, labelless
from configs.schema.checks import at_least


@dataclass(frozen=True)
class SuperclassEvaluation:
    """The matrix of attack level x evaluated level over the forest of `hierarchy`, and hierarchical metrics.

    attacks  as `evaluation.attacks`; each is aimed at the leaves, then at every level of every tree by that level's own
             texts. With none, clean images alone are measured.
    samples  labelled samples, evenly spread over the split; null = all.
    """

    attacks: dict[str, Attack] = field(default_factory=dict)
    samples: int | None = None

    def __post_init__(self) -> None:
        at_least(1, samples=self.samples)
        for name, attack in self.attacks.items():
            if isinstance(attack, NoAttack):
                raise FieldError(
                    "attacks", f"has '{name}' of kind none, and clean accuracy is always measured; remove it"
                )
            if labelless(attack):
                raise FieldError("attacks", f"has '{name}', whose loss knows no level to aim at; set its loss to ce")
