"""The engine's promise: slots change the time that an attack takes, and nothing that it finds."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules.attacks import APGD, AutoAttack, Outcome, Samples, TargetedAPGD, misclassified
from lightning_modules.attacks.losses import cross_entropy
from tests.unit.networks import convolutional, images, seeds

COUNT = 24
EPS = 4 / 255
ATTACK = AutoAttack((APGD("linf", EPS, 12, restarts=2), TargetedAPGD("linf", EPS, 8, targets=3)))


@pytest.fixture(scope="module")
def model() -> Callable[[Tensor], Tensor]:
    network = convolutional(10)
    return lambda pixels: network(pixels)


def samples(model: Callable[[Tensor], Tensor], count: int = COUNT) -> Samples:
    clean = images(count, low=0.2, high=0.8)
    outputs, row = model(clean).detach(), torch.arange(count)
    return Samples(row, clean, outputs.argmax(1), outputs, seeds(count), torch.zeros_like(row))


def scheduled(attack: AutoAttack, model: Callable[[Tensor], Tensor], given: Samples, slots: int, size: int) -> Outcome:
    """All samples, pushed `size` at a time."""
    stream = attack.stream(model, cross_entropy, misclassified, slots)
    found: list[Outcome] = []
    for first in range(0, len(given), size):
        found += stream.push(given.select(torch.arange(first, min(first + size, len(given)))))
    found += stream.finish()
    outcome = Outcome.join(found)
    return outcome.select(outcome.row.argsort())


def test_slots_change_no_fate(model: Callable[[Tensor], Tensor]) -> None:
    """Against one batch in which every sample stays to the end of its trials: any number of slots, any arrival."""
    given = samples(model)
    whole = ATTACK(model, given.clean, given.target, cross_entropy, given.seeds, misclassified)
    assert 0 < whole.fallen.sum() < COUNT
    for slots, size in ((1, 24), (5, 3), (7, 24), (64, 1)):
        found = scheduled(ATTACK, model, given, slots, size)
        assert found.row.tolist() == list(range(COUNT))
        assert torch.equal(found.fallen, whole.fallen)
        torch.testing.assert_close(found.pixels, whole.pixels, rtol=0, atol=1e-4)
        torch.testing.assert_close(found.zero_gradient, whole.zero_gradient, rtol=0, atol=1e-6)
        assert torch.equal(found.stage >= 0, found.fallen)


@settings(max_examples=12, deadline=None)
@given(slots=st.integers(1, 30), size=st.integers(1, 30), steps=st.integers(1, 6), restarts=st.integers(1, 3))
def test_every_sample_leaves_once(slots: int, size: int, steps: int, restarts: int) -> None:
    network = convolutional(10)
    attack = AutoAttack((APGD("linf", EPS / 2, steps, restarts), TargetedAPGD("l2", 0.1, steps, targets=2)))
    found = scheduled(attack, network, samples(network, 13), slots, size)
    assert found.row.tolist() == list(range(13))
    assert torch.equal(misclassified(network(found.pixels), samples(network, 13).target), found.fallen)


def test_batches_are_full_until_the_samples_run_out(model: Callable[[Tensor], Tensor]) -> None:
    sizes: list[int] = []

    def watched(pixels: Tensor) -> Tensor:
        sizes.append(len(pixels))
        return model(pixels)

    given = samples(model)
    attack = AutoAttack((APGD("linf", EPS, 12),))
    scheduled(attack, watched, given, slots=6, size=COUNT)
    full = sizes.index(next(size for size in sizes if size < 6)) if min(sizes) < 6 else len(sizes)
    assert sizes[:full] == [6] * full
    assert sum(sizes[full:]) <= 6 * 13  # the last walks of all, at most one trial of each slot
    usual = COUNT * 13
    assert sum(sizes) < usual  # the fallen asked for less


def test_an_unconfirmed_success_does_not_count(model: Callable[[Tensor], Tensor]) -> None:
    """A model that sees successes everywhere, beside a precise one: the fates are the precise one's."""
    given, attack = samples(model), AutoAttack((APGD("linf", EPS, 12),))

    def rash(pixels: Tensor) -> Tensor:
        logits = model(pixels)
        return logits + 0.3 * torch.nn.functional.one_hot(logits.argsort(1)[:, -2], 10)

    found = attack.stream(rash, cross_entropy, misclassified, 8, confirm_fn=model)
    outcome = Outcome.join([*found.push(given), *found.finish()])
    truth = misclassified(model(outcome.pixels), given.target[outcome.row])
    assert torch.equal(outcome.fallen, truth)
    assert 0 < int(outcome.fallen.sum()) < COUNT
    trusting = attack(rash, given.clean, given.target, cross_entropy, given.seeds, misclassified)
    assert trusting.fallen.sum() > outcome.fallen.sum()  # there was something to refuse


def test_outputs_that_are_no_numbers_count_as_fallen_and_are_reported(model: Callable[[Tensor], Tensor]) -> None:
    given = samples(model)
    broken_below = given.clean[3].mean() + 1e-3
    attack = AutoAttack((APGD("linf", 1e-6, 3),))

    def broken(pixels: Tensor) -> Tensor:
        bad = pixels.flatten(1).mean(1) < broken_below
        return torch.where(bad[:, None], float("nan"), model(pixels))

    stream = attack.stream(broken, cross_entropy, misclassified, 8)
    outcome = Outcome.join([*stream.push(given), *stream.finish()])
    expected = given.clean.flatten(1).mean(1)[outcome.row] < broken_below
    assert torch.equal(outcome.broken, expected)
    assert torch.equal(outcome.fallen, expected)
    assert expected.any()
    assert not expected.all()


def test_without_a_judge_all_trials_run_and_the_strongest_pixels_are_kept(model: Callable[[Tensor], Tensor]) -> None:
    given, losses = samples(model, 8), []
    for restarts in (1, 3):
        attack = AutoAttack((APGD("linf", 32 / 255, 1, restarts),))
        found = attack(model, given.clean, given.target, cross_entropy, given.seeds)
        losses.append(cross_entropy(model(found.pixels), given.target))
        assert not found.fallen.any()
    assert (losses[1] >= losses[0]).all()
    assert (losses[1] > losses[0]).any()


def test_numbers_of_samples_may_be_any(model: Callable[[Tensor], Tensor]) -> None:
    given = samples(model, 6)
    moved = replace(given, row=torch.tensor([10**12, 5, 7, 0, 99, 3]))
    fates = [scheduled(ATTACK, model, each, 4, 6) for each in (given, moved)]
    order = moved.row.argsort()
    assert torch.equal(fates[0].fallen[order], fates[1].fallen)
