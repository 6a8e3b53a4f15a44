"""A result row: one figure, what it was measured on, and where it comes from."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

SWEEP = "sweep"  # attack_name of the accuracy-by-eps curve
SUPERCLASS = "superclass"  # attack_name of the superclass matrix's clean figures
PROVENANCE = ("config_hash", "git_sha", "manifest_digest", "versions", "seconds", "device")


@dataclass(frozen=True)
class Row:
    """One measured figure.

    value        a share in [0, 1] for accuracies and detection metrics.
    n            samples that it was measured on.
    level, tree  0 and None for leaf classes; >= 1 and the tree's name above them; None where classes play no part, and
                 a level of None for all levels of a tree, or of the forest.
    attack       the attack's whole setting; None on clean pictures. Where it aims at a level, `aim` has tree and level.
    attack_name  what the configuration calls it, with `>LEVEL` where it aims at one; `SWEEP` for the accuracy-by-eps
                 curve, also at eps 0; `SUPERCLASS` for the superclass matrix's clean pictures.
    score        the open-world score behind a detection metric; None for others.
    checks       what speaks for or against trusting the figure; `suspect` lists reasons against.
    group        of an OOD split: near or far; of such a group's mean as well.
    low, high    of a bootstrap interval, where there is one.
    without_named  the figure by a bank without the antibodies that name what is to be detected; None where there is no
                 bank.
    """

    metric: str
    value: float
    n: int
    dataset: str
    split: str
    level: int | None
    tree: str | None
    attack: Mapping[str, Any] | None
    attack_name: str | None
    score: str | None
    stage: str
    seed: int
    checks: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None
    low: float | None = None
    high: float | None = None
    without_named: float | None = None

    @staticmethod
    def parse(fields: Mapping[str, Any]) -> "Row":
        """A row from its JSON object. Raises KeyError, TypeError or ValueError where it is not one."""
        value, n = float(fields["value"]), int(fields["n"])
        if not math.isfinite(value) or n < 1:
            raise ValueError(f"value={value} with n={n}")
        return Row(
            metric=str(fields["metric"]),
            value=value,
            n=n,
            dataset=str(fields["dataset"]),
            split=str(fields["split"]),
            level=fields["level"],
            tree=fields["tree"],
            attack=fields["attack"],
            attack_name=fields.get("attack_name"),
            score=fields.get("score"),
            stage=str(fields["stage"]),
            seed=int(fields["seed"]),
            checks=dict(fields["checks"]),
            provenance={name: fields.get(name) for name in PROVENANCE},
            group=fields.get("group"),
            low=fields.get("low"),
            high=fields.get("high"),
            without_named=fields.get(f"{fields['metric']}_without_named"),
        )

    @property
    def clean(self) -> bool:
        """Whether it was measured on clean pictures, and not as a point of the sweep."""
        return self.attack is None and self.attack_name is None

    @property
    def attacked_score(self) -> bool:
        """Whether it is of an open-world score under attack, which has a table of its own."""
        return self.score is not None and self.attack is not None

    @property
    def superclass(self) -> bool:
        """Whether it is of the superclass matrix, which has tables and plots of its own."""
        return self.attack_name == SUPERCLASS or "aim" in (self.attack or {})

    @property
    def eps_255(self) -> float:
        """The attack's radius in 1/255 of the pixel range; 0 on clean pictures."""
        return float(self.attack["eps_255"]) if self.attack and "eps_255" in self.attack else 0.0

    @property
    def suspect(self) -> tuple[str, ...]:
        """Reasons not to trust the figure; empty for most."""
        reasons = self.checks.get("suspect") or ()
        return (reasons,) if isinstance(reasons, str) else tuple(str(reason) for reason in reasons)

    @property
    def question(self) -> tuple[Any, ...]:
        """What was asked, whatever the stage: rows that answer the same question can be compared."""
        return (
            self.metric, self.dataset, self.split, self.level, self.tree,
            self.attack_name, self.attack and self.attack.get("norm"), self.eps_255, self.score, self.seed,
        )  # fmt: skip


def where(rows: Iterable[Row], **fields: Any) -> list[Row]:
    """The rows whose attributes equal `fields`."""
    return [row for row in rows if all(getattr(row, name) == wanted for name, wanted in fields.items())]
