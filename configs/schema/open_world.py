"""How well a model tells what is not in-distribution, on clean images and under attack."""

from dataclasses import dataclass, field

from configs.errors import FieldError, did_you_mean
from configs.schema.attack import Attack
from configs.schema.checks import at_least
from configs.schema.scores import MCM, AdaNeg, MaxLogit, Score
from configs.schema.single_attack import APGD, PGD


@dataclass(frozen=True)
class OpenWorldConfig:
    """Open-world scores of the whole of each split, all from one pass over its images; data without OOD splits has
    none.

    scores            by name; none: MCM and MaxLogit.
    attacks           as `evaluation.attacks`, PGD and APGD only, whose own loss plays no part. Each is aimed at each of
                      `attacked_scores`: in-distribution images are changed to be rejected, OOD images to be accepted.
    attacked_scores   names of scores that the attacks aim at; what they make is judged by all scores.
    attacked_samples  of the in-distribution split and of each OOD split, evenly spread; null = all.
    joint             whether in-distribution images are also changed to be misclassified and accepted all the same.
    """

    scores: dict[str, Score] = field(default_factory=dict)
    attacks: dict[str, Attack] = field(default_factory=dict)
    attacked_scores: list[str] = field(default_factory=list)
    attacked_samples: int | None = None
    joint: bool = False

    @property
    def wanted(self) -> dict[str, Score]:
        """The scores that are taken, by name."""
        return dict(self.scores) or {"mcm": MCM(), "max_logit": MaxLogit()}

    def __post_init__(self) -> None:
        at_least(1, attacked_samples=self.attacked_samples)
        self._check_attacks()
        for name in self.attacked_scores:
            if name not in self.wanted:
                raise FieldError("attacked_scores", f"names no score '{name}'; {did_you_mean(name, self.wanted)}")
            if isinstance(self.wanted[name], AdaNeg):
                raise FieldError(
                    "attacked_scores",
                    f"names '{name}' of kind ada_neg, which can't be attacked, because the score of an image depends "
                    "on the images before it; leave it out",
                )
        if len(set(self.attacked_scores)) < len(self.attacked_scores):
            raise FieldError("attacked_scores", f"has an entry twice, got {self.attacked_scores}; name each once")

    def _check_attacks(self) -> None:
        for name, attack in self.attacks.items():
            if not isinstance(attack, (PGD, APGD)):
                raise FieldError("attacks", f"has '{name}' of kind {attack.kind}; a score is attacked by pgd or apgd")
        if bool(self.attacks) != bool(self.attacked_scores):
            lacking = "attacked_scores" if self.attacks else "attacks"
            raise FieldError(lacking, "is empty; attacks need both evaluation.open_world.attacks and .attacked_scores")
        if self.joint and not self.attacks:
            raise FieldError("joint", "needs an attack; name one in evaluation.open_world.attacks")
