"""Every attack that we have, under every norm it has, by name; for properties that all of them share."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_modules.attacks import APGD, PGD, AutoAttack, Outcome, Samples, TargetedAPGD, misclassified
from lightning_modules.attacks.apgd_l1 import L1APGD, TargetedL1APGD
from lightning_modules.attacks.attack import ModelFn
from lightning_modules.attacks.cw import CWL2, CWLinf
from lightning_modules.attacks.fab import TargetedFAB
from lightning_modules.attacks.fab_untargeted import UntargetedFAB
from lightning_modules.attacks.losses import cross_entropy
from lightning_modules.attacks.method import Method
from lightning_modules.attacks.square import Square
from tests.unit.networks import images, seeds

RADIUS = {"linf": 3 / 255, "l2": 0.12, "l1": 0.9}
ORDER = {"linf": torch.inf, "l2": 2, "l1": 1}
Build = Callable[[float, int, int], Method[Any]]
"""(radius in [0, 1], a measure of the budget of questions, restarts) -> a method."""

_METHODS: dict[str, Build] = {
    "apgd-linf": lambda eps, steps, restarts: APGD("linf", eps, steps, restarts),
    "apgd-l2": lambda eps, steps, restarts: APGD("l2", eps, steps, restarts),
    "apgd-l1": lambda eps, steps, restarts: L1APGD(eps, 2 * steps, restarts),
    "apgd-t-linf": lambda eps, steps, restarts: TargetedAPGD("linf", eps, steps, restarts, targets=2),
    "apgd-t-l2": lambda eps, steps, restarts: TargetedAPGD("l2", eps, steps, restarts, targets=2),
    "apgd-t-l1": lambda eps, steps, restarts: TargetedL1APGD(eps, 2 * steps, restarts, targets=2),
    "fab-t-linf": lambda eps, steps, restarts: TargetedFAB("linf", eps, steps, restarts, targets=2),
    "fab-t-l2": lambda eps, steps, restarts: TargetedFAB("l2", eps, steps, restarts, targets=2),
    "fab-t-l1": lambda eps, steps, restarts: TargetedFAB("l1", eps, steps, restarts, targets=2),
    "fab-linf": lambda eps, steps, restarts: UntargetedFAB("linf", eps, steps, restarts),
    "fab-l2": lambda eps, steps, restarts: UntargetedFAB("l2", eps, steps, restarts),
    "fab-l1": lambda eps, steps, restarts: UntargetedFAB("l1", eps, steps, restarts),
    "square-linf": lambda eps, steps, restarts: Square("linf", eps, 3 * steps, restarts),
    "square-l2": lambda eps, steps, restarts: Square("l2", eps, 3 * steps, restarts),
    "square-l1": lambda eps, steps, restarts: Square("l1", eps, 3 * steps, restarts),
    "cw-linf": lambda eps, steps, restarts: CWLinf(eps, eps / 3, steps * restarts),
    "cw-l2": lambda eps, steps, restarts: CWL2(eps, 2 * steps, 3 + restarts, learning_rate=0.02, constant=1.0),
}
SCHEDULED = (*_METHODS, "auto-attack-linf", "auto-attack-l2", "auto-attack-l1")
ALL = (*SCHEDULED, "pgd-linf", "pgd-l2", "pgd-momentum-linf")


def norm_of(name: str) -> str:
    return name.rsplit("-", 1)[1]


def scheduled(name: str, scale: float = 1.0, steps: int = 5, restarts: int = 1) -> AutoAttack:
    """One of SCHEDULED at `scale` times the norm's RADIUS."""
    norm, eps = norm_of(name), scale * RADIUS[norm_of(name)]
    members = [name]
    if name.startswith("auto-attack"):
        members = [f"{member}-{norm}" for member in ("apgd", "apgd-t", "fab-t", "square")]
    return AutoAttack(tuple(_METHODS[member](eps, steps, restarts) for member in members))


def attack(name: str, scale: float = 1.0, steps: int = 5, restarts: int = 1) -> AutoAttack | PGD:
    """One of ALL at `scale` times the norm's RADIUS."""
    if not name.startswith("pgd"):
        return scheduled(name, scale, steps, restarts)
    norm, eps = norm_of(name), scale * RADIUS[norm_of(name)]
    assert norm in ("linf", "l2")
    return PGD("l2" if norm == "l2" else "linf", eps, eps / 3, steps, restarts, 0.9 if "momentum" in name else 0.0)


def samples(model: ModelFn, count: int, clean: Tensor | None = None) -> Samples:
    """Images, labelled as the model sees them."""
    clean = images(count, low=0.2, high=0.8) if clean is None else clean
    outputs, row = model(clean).detach(), torch.arange(count)
    return Samples(row, clean, outputs.argmax(1), outputs, seeds(count), torch.zeros_like(row))


def streamed(found: AutoAttack, model: ModelFn, given: Samples, slots: int) -> Outcome:
    """What a stream says about the samples, in their order."""
    stream = found.stream(model, cross_entropy, misclassified, slots)
    outcome = Outcome.join([*stream.push(given), *stream.finish()])
    return outcome.select(outcome.row.argsort())


def lengths(perturbation: Tensor, norm: str) -> Tensor:
    """float64 (B,)."""
    found: Tensor = torch.linalg.vector_norm(perturbation.double().flatten(1), ORDER[norm], dim=1)
    return found
