"""Signs that an attack was too weak for its figure to count as robustness (Carlini et al. 2019)."""

from collections.abc import Sequence
from itertools import pairwise

from experiments.analysis import names
from experiments.analysis.row import SWEEP, Row, where
from experiments.analysis.table import value


def doubts(rows: Sequence[Row]) -> list[str]:
    """One sentence a sign, over leaf accuracies of each stage; empty where nothing speaks against the figures."""
    found = [row for row in rows if row.suspect]
    reasons = [f"{row.stage}: {names.attack(row.attack)}: {reason}." for row in found for reason in row.suspect]
    leaves = where(rows, metric="accuracy", level=0)
    stages = dict.fromkeys(row.stage for row in leaves)
    weak = [sentence for stage in stages for sentence in _weaker(where(leaves, stage=stage))]
    return [*dict.fromkeys(reasons), *weak]


def examined(rows: Sequence[Row]) -> list[str]:
    """What `doubts` had to go by; empty where nothing was attacked."""
    leaves = where(rows, metric="accuracy", level=0)
    looks = {
        "the checks of each attack": any(row.attack and row.checks for row in leaves),
        "whether accuracy rises with the radius": len(where(leaves, attack_name=SWEEP)) > 1,
        "whether APGD leaves more standing than PGD on the same pictures": any(
            _should_be_stronger(weak, strong) for weak in leaves for strong in leaves
        ),
    }
    return [look for look, possible in looks.items() if possible]


def _weaker(rows: Sequence[Row]) -> list[str]:
    """Pairs that are the wrong way round: more accuracy under a larger radius, or under APGD than under PGD."""
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
        if strong.value > weak.value
    ]


def _should_be_stronger(weak: Row, strong: Row) -> bool:
    """Whether the two are PGD and APGD of one radius on the same pictures at one stage."""
    if weak.attack is None or strong.attack is None or SWEEP in (weak.attack_name, strong.attack_name):
        return False
    shared = ("stage", "dataset", "split", "n", "seed")
    same = all(getattr(weak, name) == getattr(strong, name) for name in shared)
    kinds = (weak.attack.get("kind"), strong.attack.get("kind"))
    return same and kinds == ("pgd", "apgd") and names.radius(weak.attack) == names.radius(strong.attack)
