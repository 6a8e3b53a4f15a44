"""L1-APGD against the published algorithm, written for one sample at a time, in double precision where it projects."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from lightning_modules.attacks import AutoAttack, misclassified, noise
from lightning_modules.attacks.apgd_l1 import L1APGD, TargetedL1APGD
from lightning_modules.attacks.attack import LossFn, ModelFn
from lightning_modules.attacks.losses import cross_entropy, dlr, margin, targeted_dlr
from lightning_modules.attacks.outcome import Outcome
from lightning_modules.attacks.walks import Samples
from tests.unit.networks import convolutional, images, linear, seeds
from tests.unit.test_simplex import nearest

EPS = {3: 0.8, 20: 0.5}
SIZE = 3 * 8 * 8


@dataclass
class Climb:
    """What the published algorithm finds for one sample at one radius."""

    best: Tensor
    best_loss: float
    fell: bool
    restarts: int = 0
    shortenings: int = 0


def count(delta: Tensor, radius: float) -> int:
    return int((delta.abs() > 2e-7 * radius).sum())


def at_radius(
    model: ModelFn, clean: Tensor, start: Tensor, target: Tensor, loss: LossFn, radius: float, steps: int, plain: bool
) -> Climb:
    """One sample (1, C, H, W); `plain` where the start is random and says nothing about the sparsity."""

    def evaluate(point: Tensor) -> tuple[float, Tensor, bool]:
        point = point.clone().requires_grad_()
        logits = model(point)
        value = loss(logits, target)[0]
        fell = int(logits.argmax()) != int(target.flatten()[0])
        return float(value.detach()), torch.autograd.grad(value, point)[0], fell

    point, eta, every = start, radius, max(int(0.04 * steps), 1)
    value, gradient, fell = evaluate(point)
    found, best_gradient = Climb(point, value, fell), gradient
    touched = SIZE if plain else count(point - clean, radius)
    share = torch.tensor(0.2) if plain else torch.tensor(float(touched)) / SIZE / 1.5
    for step in range(1, steps + 1):
        allowed = SIZE - min(max(int((1 - share) * SIZE), 0), SIZE - 1)
        signs = torch.zeros(SIZE)
        signs[gradient.abs().flatten().topk(allowed).indices] = 1.0
        signs = signs.view_as(gradient) * gradient.sign()
        ascended = point + eta * signs / (signs.abs().sum() + 1e-10)
        exact = nearest(ascended[0], clean[0], radius)[None]
        point = torch.where((exact - clean).abs() > 2e-7 * radius, exact.float(), clean)
        value, gradient, fell = evaluate(point)
        found.fell |= fell
        if value > found.best_loss:
            found.best, found.best_loss, best_gradient = point, value, gradient
        if step % every == 0:
            now = count(found.best - clean, radius)
            if now < 0.95 * touched:
                eta, point, gradient = radius, found.best, best_gradient
                found.restarts += 1
            else:
                eta = max(eta / 1.5, radius / 10)
                found.shortenings += 1
            touched, share = now, torch.tensor(float(now)) / SIZE / 1.5
    return found


def published(
    model: ModelFn, clean: Tensor, draw: Tensor, target: Tensor, loss: LossFn, method: L1APGD
) -> tuple[Climb, list[Climb]]:
    """The climb at the radius asked for, and those at larger ones before it."""
    early = math.ceil(0.3 * method.steps)
    stages = [(3, early), (2, early), (1, method.steps - 2 * early)] if method.shrinking else [(1, method.steps)]
    point, climbs = clean + draw, []
    for times, steps in stages:
        radius = times * method.eps
        exact = nearest(point[0], clean[0], radius)[None]
        start = torch.where((exact - clean).abs() > 2e-7 * radius, exact.float(), clean)
        climbs.append(at_radius(model, clean, start, target, loss, radius, steps, plain=not method.shrinking))
        point = climbs[-1].best
    return climbs[-1], climbs[:-1]


def draws(rows: slice, trial: int) -> Tensor:
    """What the first method of a sequence draws for its starting points."""
    return noise.normal(noise.derive(noise.derive(seeds(64)[rows], 0), trial), (3, 8, 8))


@pytest.mark.parametrize("shrinking", [True, False])
@pytest.mark.parametrize(("loss", "classes"), [(cross_entropy, 3), (dlr, 20)])
def test_equals_the_published_algorithm(loss: LossFn, classes: int, shrinking: bool) -> None:
    model, clean = convolutional(classes), images(4, low=0.1, high=0.9)
    labels, method = model(clean).argmax(1), L1APGD(EPS[classes], 40, 1, shrinking)
    found = AutoAttack((method,))(model, clean, labels, loss, seeds(4))
    restarts = shortenings = 0
    for row in range(4):
        one = slice(row, row + 1)
        last, before = published(model, clean[one], draws(one, 0), labels[one], loss, method)
        torch.testing.assert_close(found.pixels[one], last.best, rtol=0, atol=1e-5)
        assert loss(model(found.pixels[one]), labels[one]).item() == pytest.approx(last.best_loss, rel=1e-4)
        restarts += sum(climb.restarts for climb in (last, *before))
        shortenings += sum(climb.shortenings for climb in (last, *before))
    assert restarts > 4  # the parts that adapt were at work
    assert shortenings > 4


@pytest.mark.parametrize("classes", [3, 20])
def test_early_exit_changes_no_fate(classes: int) -> None:
    """Whatever the slots, those fall that fall in the full run at the radius asked for, restarts included."""
    model, clean = convolutional(classes), images(8, low=0.1, high=0.9)
    labels, method = model(clean).argmax(1), L1APGD(EPS[classes] * 0.8, 20, restarts=2)
    fates = []
    for row in range(8):
        one = slice(row, row + 1)
        runs = [
            published(model, clean[one], draws(one, trial), labels[one], cross_entropy, method)[0] for trial in (0, 1)
        ]
        fates.append(any(run.fell for run in runs))
    assert 0 < sum(fates) < 8
    samples = Samples(torch.arange(8), clean, labels, model(clean), seeds(8), torch.zeros(8, dtype=torch.int64))
    for slots in (3, 8):
        stream = AutoAttack((method,)).stream(model, cross_entropy, misclassified, slots)
        outcome = Outcome.join([*stream.push(samples), *stream.finish()])
        outcome = outcome.select(outcome.row.argsort())
        assert outcome.fallen.tolist() == fates
        assert torch.equal(outcome.fallen, misclassified(model(outcome.pixels), labels))


def test_targeted_fate_and_targets() -> None:
    """Targets are the 2nd to 4th best clean classes, in this order; a sample falls to any class but its label."""
    model, clean = convolutional(20), images(6, low=0.1, high=0.9)
    logits, method = model(clean), TargetedL1APGD(EPS[20] * 0.6, 20, targets=3)
    labels, ranking = logits.argmax(1), logits.argsort(dim=1, descending=True)
    found = AutoAttack((method,))(model, clean, labels, cross_entropy, seeds(6), misclassified)
    fates = []
    for row in range(6):
        one, fell = slice(row, row + 1), False
        for trial in range(3):
            pair = torch.stack([labels[one], ranking[one, trial + 1]], dim=1)
            fell |= published(model, clean[one], draws(one, trial), pair, targeted_dlr, method)[0].fell
        fates.append(fell)
    assert found.fallen.tolist() == fates
    assert 0 < sum(fates) < 6


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_targeted_with_few_classes(classes: int) -> None:
    model, clean = linear(classes), images(8)
    labels = model(clean).argmax(1)
    found = AutoAttack((TargetedL1APGD(30.0, 20),))(model, clean, labels, cross_entropy, seeds(8), misclassified)
    assert found.fallen.all()


def test_linear_model_reaches_the_analytic_optimum() -> None:
    """Far from the box's sides, all of the budget goes to the coordinate of the largest weight. The shortest step, a
    tenth of the radius over all coordinates that it moves, is how near the walk comes."""
    model, clean, eps = linear(2), images(4, low=0.4, high=0.6), 0.3
    labels = torch.zeros(4, dtype=torch.int64)
    weight = model.network[1].weight.detach()
    largest = (weight[1] - weight[0]).abs().max()
    found = AutoAttack((L1APGD(eps, 100, 1),))(model, clean, labels, margin, seeds(4))
    gain = margin(model(found.pixels), labels) - margin(model(clean), labels)
    assert (gain >= 0.97 * eps * largest).all()
    assert (gain <= eps * largest + 1e-5).all()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shrinking", [True, False])
def test_the_budget_holds(half: torch.dtype, shrinking: bool) -> None:
    network, clean, eps = convolutional(10), images(32, low=-0.2, high=1.2).clamp(0, 1), 0.7

    def model(pixels: Tensor) -> Tensor:
        return network(pixels.to(half)).to(half)

    labels = model(clean).argmax(1)
    found = AutoAttack((L1APGD(eps, 20, 2, shrinking),))(model, clean, labels, cross_entropy, seeds(32), misclassified)
    assert (found.pixels - clean).double().abs().sum((1, 2, 3)).max() <= eps + 1e-6
    assert found.pixels.min() >= 0
    assert found.pixels.max() <= 1
    assert 0 < found.fallen.sum() < 32


@pytest.mark.parametrize(("steps", "shrinking", "asked"), [(100, True, 103), (1, True, 5), (7, False, 8)])
def test_questions_of_a_trial(steps: int, shrinking: bool, asked: int) -> None:
    model, clean, batches = convolutional(3), images(2), []

    def counted(pixels: Tensor) -> Tensor:
        batches.append(len(pixels))
        return model(pixels)

    AutoAttack((L1APGD(0.1, steps, 1, shrinking),))(counted, clean, model(clean).argmax(1), cross_entropy, seeds(2))
    assert batches == [2] * asked
