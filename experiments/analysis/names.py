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
    "level_accuracy": "accuracy by prompt",
    "mean_level_accuracy": "accuracy by prompt, mean over levels",
    "mean_level_robust_accuracy": "accuracy by prompt, mean over levels",
    "hierarchical_precision": "hierarchical precision",
    "hierarchical_recall": "hierarchical recall",
    "consistency": "consistency of the levels",
    "id_accuracy": "accuracy in-distribution",
    "id_accepted": "in-distribution accepted",
    "silent_error": "accepted, but of the wrong class",
    "open_set_accuracy": "open-set accuracy",
    "h_score": "H-score",
    "aurc": "area under the risk-coverage curve",
}
DISTANCES = {"tree_induced_error": "tree-induced error, edges", "lca_height": "height of mistakes, levels"}
LOWER = frozenset(
    {*DISTANCES, "fpr95_id_pos", "fpr95_ood_pos", "silent_error", "aurc", "seconds_per_step", "hours", "device_hours"}
)  # is better
SPLITS = {
    "near": "near-OOD",
    "near_seen": "near-OOD, seen in pretraining",
    "near_unseen": "near-OOD, never seen",
    "far": "far-OOD",
}
SCORES = {
    "msp": "MSP",
    "mcm": "MCM",
    "max_logit": "MaxLogit",
    "energy": "Energy",
    "neglabel": "NegLabel",
    "csp": "CSP",
    "eoe": "EOE",
    "ada_neg": "AdaNeg",
    "clipn": "CLIPN",
    "knn": "KNN",
    "mahalanobis": "Mahalanobis",
    "vim": "ViM",
    "s_dis": "S_DIS",
}
LEVELS = {("unicode", 1): "unicode 1 (subgroup)", ("unicode", 2): "unicode 2 (group)"}
NORMS = {"linf": "L-inf", "l2": "L2", "l1": "L1"}
CHECKS = {
    "zero_gradient": "zero gradient",
    "blind": "samples without gradient",
    "randomised": "random answers",
    "softmax": "softmax outputs",
    "rescaled": "rescaled logits",
    "unit_scale": "logits without scale",
    "black_box": "Square against gradients",
    "transfer": "transfer from the undefended model",
    "huge_eps": "huge eps",
}
MEMBERS = {"apgd_t": "APGD-T", "square": "Square"}
VERSIONS = {"standard": "AutoAttack", "plus": "AutoAttack plus", "rand": "AutoAttack rand"}


def metric(name: str) -> str:
    """A metric's name, of a share or a distance; unknown ones as they are."""
    return (METRICS | DISTANCES).get(name, name)


def lower_is_better(figure: str) -> bool:
    """Of a figure METRIC/ATTACK/PLACE, or of a column of costs."""
    return figure.partition("/")[0] in LOWER


def score(name: str) -> str:
    """An open-world score that is called as its method is; others as they are called."""
    return SCORES.get(name, name)


def split(name: str) -> str:
    """What an open-world split holds; unknown ones as they are."""
    return SPLITS.get(name, name)


def level(tree: str | None, number: int | None) -> str:
    """A level of a class tree: leaf, or the tree's name and how far above the leaves."""
    if number is None:
        return ""
    return "leaf" if number == 0 else LEVELS.get((tree or "", number), f"{tree or 'tree'} {number}")


def radius(attack: Mapping[str, Any]) -> str:
    """`L-inf 4/255`, `L2 0.5`: as the field writes the radii of each norm."""
    norm, eps_255 = str(attack.get("norm", "")), float(attack.get("eps_255", 0))
    size = f"{eps_255 / 255:.4g}" if norm in ("l2", "l1") else f"{eps_255:g}/255"
    return f"{NORMS.get(norm, norm)} {size}".strip()


def attack(setting: Mapping[str, Any] | None) -> str:
    """`PGD-20, L-inf 4/255`; `clean` for None. Step size, loss and the rest are left to the full setting."""
    return "clean" if setting is None else f"{method(setting)}, {radius(setting)}"


def method(setting: Mapping[str, Any]) -> str:
    """`PGD-20`, or `PGD` where the setting leaves the number of steps open."""
    match setting.get("kind", "attack"):
        case "auto_attack":
            members = (MEMBERS.get(member, member.upper()) for member in setting.get("attacks") or ())
            return VERSIONS.get(str(setting.get("version")), " + ".join(members))
        case "apgd":
            loss = str(setting.get("loss", "ce"))
            return f"APGD-{'CE' if loss == 'objective' else loss.upper()}"
        case "fab":
            return "FAB-T" if setting.get("targets") else "FAB"
        case "worst":
            return "worst of all attacks"
        case "torchattacks":
            return f"{setting.get('name')} of torchattacks"
        case "pgd":
            return f"PGD-{setting['steps']}" if "steps" in setting else "PGD"
        case kind:
            return MEMBERS.get(str(kind), str(kind).upper())
