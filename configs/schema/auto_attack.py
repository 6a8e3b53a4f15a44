"""AutoAttack: which attacks each version consists of."""

from dataclasses import dataclass, field
from typing import Literal

from configs.errors import FieldError, did_you_mean
from configs.schema.checks import at_least, radius
from configs.schema.single_attack import APGD, CW, FAB, AnyNorm, SingleAttack, Square, TargetedAPGD

Version = Literal["standard", "plus", "rand", "custom"]
ENSEMBLES: dict[str, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
    "custom": (),
}
MEMBERS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square", "cw")


@dataclass(frozen=True)
class AutoAttack:
    """AutoAttack (Croce & Hein 2020): attacks in a row, each on the samples that still stand. null: the version's own.

    version   as the reference's: standard | plus (more restarts) | rand (for random models) | custom (`attacks`).
    attacks   of version custom, in order: apgd-ce, apgd-dlr, apgd-t, fab (untargeted), fab-t, square, cw.
    restarts  of apgd-ce, apgd-dlr and fab: 1; 5 in plus; under L1 5 of apgd-ce in standard.
    targets   of apgd-t and fab-t: 9; of apgd-t in standard under L1 5.
    eot       forward passes a gradient of apgd: 1; 20 in rand.
    """

    kind: Literal["auto_attack"] = "auto_attack"
    version: Version = "standard"
    norm: AnyNorm = "linf"
    eps_255: float = 8.0
    attacks: list[str] = field(default_factory=list)
    steps: int = 100
    queries: int = 5000
    restarts: int | None = None
    targets: int | None = None
    eot: int | None = None

    def __post_init__(self) -> None:
        radius(self.norm, self.eps_255)
        at_least(1, steps=self.steps, queries=self.queries)
        at_least(1, restarts=self.restarts, targets=self.targets, eot=self.eot)
        self._check_version()
        for name in self.attacks:
            if name not in MEMBERS:
                raise FieldError("attacks", f"names '{name}', which is none; {did_you_mean(name, MEMBERS)}")
        if self.norm == "l1" and "cw" in self.attacks:
            raise FieldError("attacks", "names cw, which has no norm l1; leave it out, or use linf or l2")

    @property
    def members(self) -> tuple[SingleAttack, ...]:
        """The attacks in order, each with its own settings."""
        return tuple(self._member(name) for name in ENSEMBLES[self.version] or self.attacks)

    def _check_version(self) -> None:
        if self.version == "custom" and not self.attacks:
            raise FieldError("attacks", "must name at least one attack, such as [apgd-ce, apgd-t], for version=custom")
        if self.version != "custom" and self.attacks:
            raise FieldError("attacks", f"is the version's own with version={self.version}; use version=custom")
        if len(set(self.attacks)) < len(self.attacks):
            raise FieldError("attacks", f"has an entry twice, got {self.attacks}; name each once")
        if self.version == "plus" and self.norm == "l1":
            raise FieldError("version", "plus has the norms linf and l2; use standard for l1")

    def _member(self, name: str) -> SingleAttack:
        large = self.version == "standard" and self.norm == "l1"
        many = self.restarts or (5 if self.version == "plus" else 1)
        restarts = self.restarts or (5 if large else many)
        eot = self.eot or (20 if self.version == "rand" else 1)
        norm, eps_255, steps = self.norm, self.eps_255, self.steps
        match name:
            case "apgd-ce":
                return APGD(norm=norm, eps_255=eps_255, steps=steps, restarts=restarts, loss="ce", eot=eot)
            case "apgd-dlr":
                return APGD(norm=norm, eps_255=eps_255, steps=steps, restarts=restarts, loss="dlr", eot=eot)
            case "apgd-t":
                targets = self.targets or (5 if large else 9)
                return TargetedAPGD(norm=norm, eps_255=eps_255, steps=steps, targets=targets, eot=eot)
            case "fab":
                return FAB(norm=norm, eps_255=eps_255, steps=steps, restarts=many, targets=None)
            case "fab-t":
                return FAB(norm=norm, eps_255=eps_255, steps=steps, targets=self.targets or 9)
            case "square":
                return Square(norm=norm, eps_255=eps_255, queries=self.queries)
        assert norm != "l1", "__post_init__ refuses it"
        return CW(norm=norm, eps_255=eps_255, steps=steps)
