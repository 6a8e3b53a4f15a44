"""Signs that an attack was too weak for its figure to count as robustness (Carlini et al. 2019)."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from experiments.analysis import names
from experiments.analysis.row import SWEEP, Row, where
from experiments.analysis.table import value
from experiments.analysis.verdicts import title

FULL = ("standard", "plus")  # versions of AutoAttack with targeted and untargeted APGD
TOLERATED = 0.002  # by which Square may beat a gradient, as AutoAttack's own flag has it


def doubts(rows: Sequence[Row]) -> list[str]:
    """One sentence a sign, over leaf accuracies of each stage; empty where nothing speaks against the figures."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for reason in row.suspect:
            reasons.setdefault((row.stage, reason), []).append(title(row))
    found = [f"{stage}: {'; '.join(dict.fromkeys(attacks))}: {reason}." for (stage, reason), attacks in reasons.items()]
    leaves = where(rows, metric="accuracy", level=0)
    stages = dict.fromkeys(row.stage for row in leaves)
    return [*found, *(sentence for stage in stages for sentence in _weaker(where(leaves, stage=stage)))]


def examined(rows: Sequence[Row]) -> list[str]:
    """What `doubts` had to go by; empty where nothing was attacked."""
    leaves = where(rows, metric="accuracy", level=0)
    looks = {
        "the checks of each attack": any(row.attack and row.checks for row in leaves),
        "whether accuracy rises with the radius": len(where(leaves, attack_name=SWEEP)) > 1,
        "whether a stronger attack leaves more standing than a weaker one on the same pictures": any(
            _should_be_stronger(weak, strong) for weak in leaves for strong in leaves
        ),
    }
    return [look for look, possible in looks.items() if possible]


def _weaker(rows: Sequence[Row]) -> list[str]:
    """Pairs that are the wrong way round: more accuracy under a larger radius, or under the stronger attack."""
    curve = sorted(where(rows, attack_name=SWEEP), key=lambda row: row.eps_255)
    sentences = [
        f"{row.stage}: accuracy rises from {value(previous)} % to {value(row)} % between "
        f"{previous.eps_255:g}/255 and {row.eps_255:g}/255, where a larger radius can only help the adversary."
        for previous, row in pairwise(curve)
        if row.value > previous.value and row.n == previous.n
    ]
    pairs = [(weak, strong) for weak in rows for strong in rows if _should_be_stronger(weak, strong)]
    return sentences + [
        f"{weak.stage}: {names.attack(strong.attack)} leaves {value(strong)} % standing and "
        f"{names.attack(weak.attack)} {value(weak)} %, so the stronger attack missed what the weaker one found."
        for weak, strong in pairs
        if strong.value > weak.value + (TOLERATED if _is(weak, "square") else 0.0)
    ]


def _should_be_stronger(weak: Row, strong: Row) -> bool:
    """Whether the two are attacks of one radius on the same pictures at one stage, and the second should find more:
    APGD than PGD, an ensemble than a single one, with as many steps; and any of them than Square without gradients."""
    if weak.attack is None or strong.attack is None or SWEEP in (weak.attack_name, strong.attack_name):
        return False
    shared = ("stage", "dataset", "split", "n", "seed")
    same = all(getattr(weak, name) == getattr(strong, name) for name in shared)
    if not same or names.radius(weak.attack) != names.radius(strong.attack) or not _rank(strong.attack):
        return False
    patient = int(strong.attack.get("steps", 0)) >= int(weak.attack.get("steps", 0))
    return _is(weak, "square") or (patient and 0 < _rank(weak.attack) < _rank(strong.attack))


def _rank(attack: Mapping[str, Any]) -> int:
    """Among attacks that follow the gradient: 1 PGD, 2 APGD, 3 an ensemble of targeted and untargeted APGD; else 0."""
    kind, version, members = attack.get("kind"), attack.get("version"), set(attack.get("attacks") or ())
    if version in FULL or {"apgd-ce", "apgd-t"} <= members:
        return 3
    if kind in ("apgd", "apgd_t") or version == "rand" or any(name.startswith("apgd") for name in members):
        return 2
    return int(kind == "pgd")


def _is(row: Row, kind: str) -> bool:
    return row.attack is not None and row.attack.get("kind") == kind
