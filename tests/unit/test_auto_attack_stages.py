"""AutoAttack's schedule against the plain one: method by method, one sample at a time, to the end of every trial."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import attack as schema
from lightning_modules.attacks import PGD, AutoAttack, Samples, build, misclassified, noise
from lightning_modules.attacks.attack import ModelFn
from lightning_modules.attacks.losses import cross_entropy
from lightning_modules.attacks.method import Answer, Method
from tests.unit.all_attacks import samples, streamed
from tests.unit.networks import SHAPE, Doubled, seeds

COUNT = 16


def pictures(classes: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise around a pattern for each class; pixels and labels."""
    patterns = torch.rand(classes, *SHAPE, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    noisy = 0.35 + 0.3 * patterns[labels] + 0.25 * (torch.rand(count, *SHAPE, generator=random) - 0.5)
    return noisy.clamp(0, 1), labels


def trained(classes: int, adversarially: bool, rounds: int = 60) -> nn.Module:
    """A small network that knows its pictures, or those that an adversary made of them."""
    with torch.random.fork_rng():
        torch.manual_seed(classes)
        layers = [nn.Conv2d(3, 12, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(108, classes)]
    model, attack = Doubled(nn.Sequential(*layers)).eval(), PGD("linf", 6 / 255, 2 / 255, 4)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(rounds):
        pixels, labels = pictures(classes, 120, seed=step)
        if adversarially:
            pixels = attack(model, pixels, labels, cross_entropy, noise.derive(seeds(120), step)).pixels
        optimiser.zero_grad()
        F.cross_entropy(model(pixels), labels).backward()
        optimiser.step()
    return model.requires_grad_(False)


def falls(method: Method[Any], model: ModelFn, sample: Samples) -> bool:
    """All trials of one sample, every question of each: nothing stops early, and nobody shares the batch."""
    fell = False
    for trial in range(method.trials(sample.outputs.shape[1])):
        sample.trial = torch.tensor([trial])
        walks = method.begin(sample)
        for question in range(method.queries):
            wants = method.needs_gradient[question % len(method.needs_gradient)]
            pixels = walks.pixels.clone().requires_grad_()
            outputs = model(pixels)
            loss = method.loss(outputs, walks, cross_entropy)
            gradient = torch.autograd.grad(loss.sum(), pixels)[0] if wants else None
            inside = method.inside(walks)
            counts = (inside is None or bool(inside)) and not bool(method.over(walks))
            fell |= counts and bool(misclassified(outputs, walks.target))
            method.advance(walks, Answer(outputs.detach(), loss.detach(), gradient))
    return fell


def plainly(attack: AutoAttack, model: ModelFn, given: Samples) -> list[int]:
    """The stage that fells each sample, -1 where none does."""
    stages = []
    for row in range(len(given)):
        sample, stage = given.select(torch.tensor([row])), -1
        for number, method in enumerate(attack.methods):
            own = Samples(**(vars(sample) | {"seeds": noise.derive(sample.seeds, number)}))
            if falls(method, model, own):
                stage = number
                break
        stages.append(stage)
    return stages


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, float, float]] = {
    "3-classes": (lambda: trained(3, adversarially=False), 3, 14.0, 0.55),
    "20-classes": (lambda: trained(20, adversarially=False), 20, 10.0, 0.4),
    "adversarially-trained": (lambda: trained(6, adversarially=True), 6, 14.0, 0.5),
}


@pytest.mark.parametrize(
    ("network", "norm"),
    [("3-classes", "l2"), ("20-classes", "linf"), ("adversarially-trained", "linf"), ("adversarially-trained", "l2")],
)
def test_each_stage_fells_whom_it_fells_without_a_schedule(network: str, norm: str) -> None:
    """Equal sets of fallen samples, stage by stage, with few slots and with one for everybody."""
    make, classes, linf_255, l2 = NETWORKS[network]
    model, eps = make(), linf_255 if norm == "linf" else l2 * 255
    given = samples(model, COUNT, pictures(classes, COUNT, seed=999)[0])
    attack = build(schema.AutoAttack(norm=norm, eps_255=eps, steps=4, queries=25, targets=3))
    assert isinstance(attack, AutoAttack)
    expected = plainly(attack, model, given)
    for slots in (3, COUNT):
        assert streamed(attack, model, given, slots).stage.tolist() == expected
    assert -1 in expected
    assert 0 in expected
    assert max(expected) > 0, "a later attack found what the first one missed"
