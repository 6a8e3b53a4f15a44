"""What a reader sees for the terms of a result row."""

from collections.abc import Mapping
from typing import Any

METRICS = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "fpr95_id_pos": "FPR95, ID positive",
    "fpr95_ood_pos": "FPR95, OOD positive",
    "aupr_in": "AUPR, ID positive",
    "aupr_out": "AUPR, OOD positive",
}
SPLITS = {
    "near": "near-OOD",
    "near_seen": "near-OOD, seen in pretraining",
    "near_unseen": "near-OOD, never seen",
    "far": "far-OOD",
}
LEVELS = {("unicode", 1): "unicode 1 (subgroup)", ("unicode", 2): "unicode 2 (group)"}
NORMS = {"linf": "L-inf", "l2": "L2"}


def metric(name: str) -> str:
    """A metric's name; unknown ones as they are."""
    return METRICS.get(name, name)


def split(name: str) -> str:
    """What an open-world split holds; unknown ones as they are."""
    return SPLITS.get(name, name)


def level(tree: str | None, number: int | None) -> str:
    """A level of a class tree: leaf, or the tree's name and how far above the leaves."""
    if number is None:
        return ""
    return "leaf" if number == 0 else LEVELS.get((tree or "", number), f"{tree or 'tree'} {number}")


def radius(attack: Mapping[str, Any]) -> str:
    """`L-inf 4/255`."""
    norm = str(attack.get("norm", ""))
    return f"{NORMS.get(norm, norm)} {float(attack.get('eps_255', 0)):g}/255".strip()


def attack(setting: Mapping[str, Any] | None) -> str:
    """`PGD-20, L-inf 4/255`; `clean` for None. Step size, loss and the rest are left to the full setting."""
    if setting is None:
        return "clean"
    kind = str(setting.get("kind", "attack"))
    if kind == "apgd":
        name = "APGD-CE + targeted APGD" if setting.get("targets") else "APGD-CE"
    else:
        name = f"{kind.upper()}-{setting['steps']}" if "steps" in setting else kind.upper()
    return f"{name}, {radius(setting)}"
