"""From configurations to attacks."""

from configs.schema import attack as schema
from lightning_modules.attacks import APGD, PGD, AutoAttack, TargetedAPGD, build
from lightning_modules.attacks.losses import LOSSES


def test_radii_become_units_of_the_pixel_range() -> None:
    assert build(schema.NoAttack()) is None
    assert build(schema.PGD(eps_255=255, step_255=51, steps=3)) == PGD("linf", 1.0, 0.2, 3)
    assert build(schema.APGD(eps_255=51, steps=3)) == AutoAttack((APGD("linf", 0.2, 3),))


def test_a_sequence_is_built_in_order_with_each_ones_settings() -> None:
    members = ["apgd-t", "apgd-ce"]
    config = schema.AutoAttack(version="custom", norm="l2", eps_255=51, attacks=members, steps=3, targets=4)
    targeted, untargeted = TargetedAPGD("l2", 0.2, 3, targets=4), APGD("l2", 0.2, 3, own_loss=LOSSES["ce"])
    assert build(config) == AutoAttack((targeted, untargeted))
