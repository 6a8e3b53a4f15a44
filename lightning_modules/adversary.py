"""What attacks the images of a training step, and what it raises."""

from typing import NamedTuple

from torch import Tensor

from configs.schema.attack import APGD, PGD, AutoAttack
from configs.schema.attack import Attack as AttackConfig
from lightning_modules import attacks
from lightning_modules.attacks import Adversarial, Attack, FallenFn, LossFn, misclassified
from lightning_modules.attacks.losses import LOSSES, cross_entropy


class Adversary(NamedTuple):
    """An attack in training.

    attack  None leaves the pixels alone.
    loss    on logits and labels; None is the objective's own inner loss, on embeddings.
    fallen  set where an attack needs to know who stands; without it every sample gets the whole budget.
    """

    attack: Attack | None
    loss: LossFn | None = None
    fallen: FallenFn | None = None


def adversary(config: AttackConfig) -> Adversary:
    """The adversary of a configuration. A sequence stops at a sample's first success, every other attack goes on."""
    attack = attacks.build(config)
    if isinstance(config, PGD | APGD):
        return Adversary(attack, None if config.loss == "objective" else LOSSES[config.loss])
    return Adversary(attack, cross_entropy, misclassified if isinstance(config, AutoAttack) else None)


def untouched(pixels: Tensor) -> Adversarial:
    """What no attack makes of pixels (B, 3, H, W)."""
    nothing = pixels.new_zeros(len(pixels))
    return Adversarial(pixels, nothing, nothing.bool())
