"""From a configuration (radii in 1/255) to an attack (radii in [0, 1])."""

from typing import Any

from configs.schema import attack as schema
from lightning_modules.attacks.apgd import APGD, TargetedAPGD
from lightning_modules.attacks.apgd_l1 import L1APGD, TargetedL1APGD
from lightning_modules.attacks.attack import Attack
from lightning_modules.attacks.auto_attack import AutoAttack
from lightning_modules.attacks.cw import CWL2, CWLinf
from lightning_modules.attacks.fab import TargetedFAB
from lightning_modules.attacks.fab_untargeted import UntargetedFAB
from lightning_modules.attacks.losses import EMBEDDING_LOSSES, FALLBACKS, LOSSES
from lightning_modules.attacks.method import Method
from lightning_modules.attacks.pgd import PGD
from lightning_modules.attacks.square import Square
from lightning_modules.attacks.zoo import TorchAttacks


def build(config: schema.Attack) -> Attack | None:
    """The attack of a configuration, or None for clean pixels.

    Where the configuration's loss is `objective`, the loss is the one that the attack is called with.

    Raises:
        ConfigError: an attack of torchattacks that is not there, or that can't be trusted.
    """
    match config:
        case schema.NoAttack():
            return None
        case schema.PGD():
            return PGD(
                config.norm, config.eps_255 / 255, config.step_255 / 255, config.steps, config.restarts,
                config.momentum, config.random_start,
            )  # fmt: skip
        case schema.TorchAttack():
            return TorchAttacks(config.name, config.norm, config.eps_255 / 255, config.arguments)
        case schema.AutoAttack():
            draws = max(getattr(member, "eot", 1) for member in config.members)
            return AutoAttack(tuple(method(member) for member in config.members), draws)
    return AutoAttack((method(config),), getattr(config, "eot", 1))


def fallbacks(config: schema.Attack, classes: int) -> list[str]:
    """The losses of a configuration that so many classes are too few for, and what stands in for them; in words."""
    members = config.members if isinstance(config, schema.AutoAttack) else (config,)
    named = ["targeted_dlr" if isinstance(each, schema.TargetedAPGD) else getattr(each, "loss", "") for each in members]
    short = {name: FALLBACKS[name] for name in named if name in FALLBACKS and classes < FALLBACKS[name][0]}
    return [f"{used} in place of {name}, which needs {fewest} classes" for name, (fewest, used) in short.items()]


def method(config: schema.SingleAttack) -> Method[Any]:
    """One attack that the engine can run."""
    eps = config.eps_255 / 255
    match config:
        case schema.APGD():
            loss = None if config.loss == "objective" else (LOSSES | EMBEDDING_LOSSES)[config.loss]
            if config.norm == "l1":
                return L1APGD(eps, config.steps, config.restarts, own_loss=loss)
            return APGD(config.norm, eps, config.steps, config.restarts, loss)
        case schema.TargetedAPGD():
            if config.norm == "l1":
                return TargetedL1APGD(eps, config.steps, restarts=config.restarts, targets=config.targets)
            return TargetedAPGD(config.norm, eps, config.steps, config.restarts, targets=config.targets)
        case schema.FAB():
            if config.targets is None:
                return UntargetedFAB(config.norm, eps, config.steps, config.restarts)
            return TargetedFAB(config.norm, eps, config.steps, config.restarts, config.targets)
        case schema.Square():
            return Square(config.norm, eps, config.queries, config.restarts)
        case schema.CW() if config.norm == "linf":
            return CWLinf(eps, (config.step_255 or config.eps_255 / 4) / 255, config.steps)
        case schema.CW():
            return CWL2(
                eps, config.steps, config.search_steps, config.learning_rate, config.constant, config.confidence
            )
