"""Adversaries. `build` turns a configuration (radii in 1/255) into an attack (radii in [0, 1])."""

from configs.schema.attack import APGD as APGDConfig
from configs.schema.attack import PGD as PGDConfig
from configs.schema.attack import Attack as AttackConfig
from lightning_modules.attacks.apgd import APGD, TargetedAPGD
from lightning_modules.attacks.attack import Adversarial, Attack, FallenFn, LossFn, ModelFn, misclassified
from lightning_modules.attacks.chain import Chain
from lightning_modules.attacks.losses import LOSSES
from lightning_modules.attacks.pgd import PGD

__all__ = [
    "APGD",
    "LOSSES",
    "PGD",
    "Adversarial",
    "Attack",
    "Chain",
    "FallenFn",
    "LossFn",
    "ModelFn",
    "TargetedAPGD",
    "build",
    "misclassified",
]


def build(config: AttackConfig) -> Attack | None:
    """The attack of a configuration, or None for clean pixels. The loss is the caller's (`PGD.loss` names it)."""
    if isinstance(config, PGDConfig):
        return PGD(
            norm=config.norm,
            eps=config.eps_255 / 255,
            step=config.step_255 / 255,
            steps=config.steps,
            restarts=config.restarts,
            momentum=config.momentum,
            random_start=config.random_start,
        )
    if isinstance(config, APGDConfig):
        eps = config.eps_255 / 255
        untargeted = APGD(config.norm, eps, config.steps, config.restarts)
        if not config.targets:
            return untargeted
        return Chain((untargeted, TargetedAPGD(config.norm, eps, config.steps, config.restarts, config.targets)))
    return None
