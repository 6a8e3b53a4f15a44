"""Attacks hold few images: counted in batches, on a network whose own activations are next to nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import attack as schema
from experiments.bench.memory import peak_bytes
from lightning_modules.attacks import AutoAttack, Samples, TargetedAPGD, build, misclassified
from lightning_modules.attacks.apgd import APGD
from lightning_modules.attacks.ascent import Ascent
from lightning_modules.attacks.attack import LossFn, ModelFn, input_gradient
from lightning_modules.attacks.losses import cross_entropy

IMAGE_BATCHES = 10
RADII_255 = {"linf": 3.0, "l2": 50.0, "l1": 1275.0}  # at which a part of the samples falls


class Pooled(nn.Module):
    """A linear classifier of 4 x 4 means of images of 32 x 32 pixels."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.linear = nn.Linear(48, 10).requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.linear(F.avg_pool2d(pixels, 8).flatten(1) - 0.5)
        return 10 * logits


def samples(model: ModelFn, count: int) -> Samples:
    """Images, labelled as the model sees them."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    clean, row = 0.1 + 0.8 * F.interpolate(coarse, (32, 32)), torch.arange(count)
    outputs = model(clean)
    return Samples(row, clean, outputs.argmax(1), outputs, row + 7, torch.zeros_like(row))


@dataclass
class Streamed:
    """Attacks a stream of samples, `size` at a time, and lets go of who leaves."""

    attack: AutoAttack
    model: ModelFn
    given: Samples
    size: int
    slots: int
    fallen: int = 0

    def __call__(self) -> None:
        stream = self.attack.stream(self.model, cross_entropy, misclassified, self.slots)
        for first in range(0, len(self.given), self.size):
            for outcome in stream.flow(self.given.part(first, first + self.size)):
                self.fallen += int(outcome.fallen.sum())
        for outcome in stream.flow():
            self.fallen += int(outcome.fallen.sum())


def image_batches(run: Callable[[], object], batch: Tensor) -> float:
    return peak_bytes(run, batch.device) / batch.nbytes


@pytest.mark.parametrize(
    ("norm", "share", "slots"),
    [
        ("linf", 1e-3, 8),
        ("linf", 1.0, 8),
        ("l2", 1e-3, 8),
        ("l2", 1.0, 8),
        pytest.param("l1", 1.0, 16, marks=pytest.mark.slow),
    ],
)
def test_a_pass_and_ten_batches_of_images_are_enough(norm: schema.AnyNorm, share: float, slots: int) -> None:
    """Where nobody falls and where some do; batch by batch, all at once, and in one call."""
    model = Pooled()
    given = samples(model, 4 * slots)
    batch = given.part(0, slots)
    single = image_batches(lambda: input_gradient(model, batch.clean, batch.target, cross_entropy), batch.clean)
    assert 1 <= single < 1.05
    setting = schema.AutoAttack(norm=norm, eps_255=share * RADII_255[norm], steps=3, targets=2, queries=6)
    attack = build(setting)
    assert isinstance(attack, AutoAttack)
    arrivals = [Streamed(attack, model, given, size, slots) for size in (slots, len(given))]
    peaks = [image_batches(stream, batch.clean) for stream in arrivals]
    for stream in arrivals:
        assert (stream.fallen == 0) == (share < 1)
        assert stream.fallen < len(given)
    whole = (model, batch.clean, batch.target, cross_entropy, batch.seeds, misclassified)
    peaks.append(image_batches(lambda: attack(*whole), batch.clean))
    assert max(peaks) <= single + IMAGE_BATCHES, [round(each - single, 1) for each in peaks]


def test_later_methods_begin_with_full_slots() -> None:
    """As long as samples come: batches of the second method grow to the number of slots only, and shrink by falls."""
    model, sizes = Pooled(), []
    given, slots = samples(model, 32), 8

    class Spied(TargetedAPGD):
        def loss(self, outputs: Tensor, walks: Ascent, loss_fn: LossFn) -> Tensor:
            sizes.append(len(outputs))
            return super().loss(outputs, walks, loss_fn)

    eps = 2 * RADII_255["linf"] / 255
    attack = AutoAttack((APGD("linf", eps / 2, 3), Spied("linf", eps, 6, targets=2)))
    stream = attack.stream(model, cross_entropy, misclassified, slots)
    for first in range(0, len(given), 4):
        stream.push(given.part(first, first + 4))
    assert sizes[0] == slots
    grown = [later for earlier, later in pairwise(sizes) if later > earlier]
    assert set(grown) == {slots}
    assert min(sizes) < slots
