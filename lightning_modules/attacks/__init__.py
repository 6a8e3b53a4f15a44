"""Adversaries: `build` makes one from a configuration."""

from lightning_modules.attacks.apgd import APGD, TargetedAPGD
from lightning_modules.attacks.attack import Adversarial, Attack, FallenFn, LossFn, ModelFn, misclassified
from lightning_modules.attacks.auto_attack import AutoAttack, Stream
from lightning_modules.attacks.build import build, fallbacks
from lightning_modules.attacks.losses import EMBEDDING_LOSSES, LOSSES
from lightning_modules.attacks.outcome import Outcome
from lightning_modules.attacks.pgd import PGD
from lightning_modules.attacks.walks import Samples

__all__ = [
    "APGD",
    "EMBEDDING_LOSSES",
    "LOSSES",
    "PGD",
    "Adversarial",
    "Attack",
    "AutoAttack",
    "FallenFn",
    "LossFn",
    "ModelFn",
    "Outcome",
    "Samples",
    "Stream",
    "TargetedAPGD",
    "build",
    "fallbacks",
    "misclassified",
]
