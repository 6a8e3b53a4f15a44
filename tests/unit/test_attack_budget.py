"""What holds of every attack under every norm: the budget, the order of strengths, and no sample sees another."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lightning_modules.attacks import engine, misclassified
from lightning_modules.attacks.losses import cross_entropy
from tests.unit.all_attacks import ALL, RADIUS, SCHEDULED, attack, lengths, norm_of, samples, scheduled, streamed
from tests.unit.networks import convolutional, images, seeds

every_attack = pytest.mark.parametrize("name", ALL)
every_scheduled = pytest.mark.parametrize("name", SCHEDULED)


@every_attack
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_budget_and_range_in_any_precision_of_the_model(name: str, kind: torch.dtype) -> None:
    """Half of the pixels are at the ends of the range; the state does not follow the model's precision."""
    network, clean = convolutional(5).network.to(kind), images(10, low=-0.5, high=1.5).clamp(0, 1)

    def model(pixels: Tensor) -> Tensor:
        assert pixels.dtype == torch.float32
        return network(pixels.to(kind))

    norm, labels = norm_of(name), model(clean).argmax(1)
    found = attack(name, steps=4)(model, clean, labels, cross_entropy, seeds(10), misclassified)
    distance = lengths(found.pixels - clean, norm)
    assert found.pixels.dtype == torch.float32
    assert distance.max() <= RADIUS[norm] + 1e-6
    assert distance.max() > 0
    assert found.pixels.min() >= 0
    assert found.pixels.max() <= 1
    assert not misclassified(model(found.pixels), labels)[~found.fallen].any()


@every_attack
def test_a_larger_radius_fells_no_fewer(name: str) -> None:
    """One sample in 16 may go either way: walks at two radii are not nested."""
    model = convolutional(10)
    given = samples(model, 16)

    def standing(scale: float) -> int:
        found = attack(name, scale)(model, given.clean, given.target, cross_entropy, given.seeds, misclassified)
        return int((~found.fallen).sum())

    counts = [standing(scale) for scale in (0.05, 1.0, 40.0)]
    assert all(larger <= smaller + 1 for smaller, larger in pairwise(counts)), counts
    assert counts[-1] < counts[0], counts


@every_attack
def test_more_steps_and_restarts_fell_no_fewer(name: str) -> None:
    model = convolutional(10)
    given = samples(model, 16)

    def fallen(steps: int, restarts: int) -> int:
        found = attack(name, 1.0, steps, restarts)
        return int(found(model, given.clean, given.target, cross_entropy, given.seeds, misclassified).fallen.sum())

    few = fallen(3, 1)
    assert fallen(8, 1) >= few - 1
    assert fallen(3, 3) >= few, "the first restart is the same, and a sample falls once"


@every_scheduled
@pytest.mark.parametrize(("slots", "interval"), [(1, 1), (3, 7)])
def test_a_sample_sees_neither_its_batch_nor_the_schedule(
    name: str, slots: int, interval: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, in one batch with all, and in few slots that others leave; decisions may come late, as on a GPU."""
    model = convolutional(10)
    given, found = samples(model, 6), scheduled(name, steps=4, restarts=2)
    together = streamed(found, model, given, slots=6)
    monkeypatch.setitem(engine._INTERVAL, "cpu", interval)
    few = streamed(found, model, given, slots)
    assert torch.equal(few.fallen, together.fallen)
    assert torch.equal(few.stage, together.stage)
    torch.testing.assert_close(few.pixels, together.pixels, rtol=0, atol=1e-5)
