"""AutoPGD against the published algorithm, written for one sample at a time and without early exit."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from lightning_modules.attacks import APGD, PGD, AutoAttack, TargetedAPGD, misclassified, noise
from lightning_modules.attacks.ascent import Ascent
from lightning_modules.attacks.attack import LossFn, ModelFn
from lightning_modules.attacks.losses import cross_entropy, dlr, margin, targeted_dlr
from lightning_modules.attacks.projection import boundary_start
from tests.unit.networks import convolutional, images, linear, seeds

RADIUS = {"linf": 6 / 255, "l2": 0.25}


def own(count: int) -> Tensor:
    """The seeds of the first method in a sequence."""
    return noise.derive(seeds(count), 0)


@dataclass
class Walk:
    """What the published algorithm finds for one sample."""

    best: Tensor
    best_loss: float
    fell: bool
    halvings: int


def into_ball(point: Tensor, clean: Tensor, eps: float, norm: str) -> Tensor:
    delta = point - clean
    delta = delta.clamp(-eps, eps) if norm == "linf" else delta * min(1.0, eps / max(float(delta.norm()), 1e-12))
    return (clean + delta).clamp(0, 1)


def published(
    model: ModelFn, clean: Tensor, start: Tensor, target: Tensor, loss: LossFn, eps: float, steps: int, norm: str
) -> Walk:
    """One sample (1, C, H, W), keeping its whole history of losses; no sharing of state with the implementation."""

    def evaluate(point: Tensor) -> tuple[float, Tensor, bool]:
        point = point.clone().requires_grad_()
        logits = model(point)
        value = loss(logits, target)[0]
        label = target.flatten()[0]
        return float(value.detach()), torch.autograd.grad(value, point)[0], int(logits.argmax()) != int(label)

    value, gradient, fell = evaluate(start)
    point = before = best = start
    best_loss, best_gradient = value, gradient
    eta, window, since, halved, loss_then = 2 * eps, max(int(0.22 * steps), 1), 0, True, value
    history, halvings = [0.0], 0
    for iteration in range(steps):
        unit = gradient.sign() if norm == "linf" else gradient / (gradient.norm() + 1e-12)
        ascended = into_ball(point + eta * unit, clean, eps, norm)
        alpha = 0.75 if iteration else 1.0
        mixed = point + alpha * (ascended - point) + (1 - alpha) * (point - before)
        before, point = point, into_ball(mixed, clean, eps, norm)
        value, gradient, success = evaluate(point)
        fell |= success
        history.append(value)
        if value > best_loss:
            best, best_loss, best_gradient = point, value, gradient
        since += 1
        if since == window:
            rises = sum(
                later > earlier for earlier, later in zip(history[-window - 1 : -1], history[-window:], strict=True)
            )
            halved = rises <= 0.75 * window or (not halved and loss_then == best_loss)
            loss_then, since = best_loss, 0
            if halved:
                eta, point, gradient, halvings = eta / 2, best, best_gradient, halvings + 1
            window = max(window - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    return Walk(best, best_loss, fell, halvings)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("loss", "classes"), [(cross_entropy, 3), (cross_entropy, 20), (dlr, 3), (dlr, 20)])
def test_equals_the_published_algorithm(norm: str, loss: LossFn, classes: int) -> None:
    model, clean, eps, steps = convolutional(classes), images(3, low=0.1, high=0.9), RADIUS[norm], 30
    labels = model(clean).argmax(1)
    found = AutoAttack((APGD(norm, eps, steps),))(model, clean, labels, loss, seeds(3))
    starts = boundary_start(clean, noise.derive(own(3), 0), eps, norm)
    halvings = 0
    for row in range(3):
        one = slice(row, row + 1)
        walk = published(model, clean[one], starts[one], labels[one], loss, eps, steps, norm)
        torch.testing.assert_close(found.pixels[one], walk.best, rtol=0, atol=1e-5)
        assert loss(model(found.pixels[one]), labels[one]).item() == pytest.approx(walk.best_loss, rel=1e-4)
        halvings += walk.halvings
    assert halvings > 3  # the part that adapts was at work


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [3, 20])
def test_early_exit_changes_no_fate(norm: str, classes: int) -> None:
    """The samples that fall are those that fall in the full run, restarts included."""
    model, clean, steps = convolutional(classes), images(12, low=0.1, high=0.9), 15
    labels, eps = model(clean).argmax(1), RADIUS[norm] * 0.6
    attack = AutoAttack((APGD(norm, eps, steps, restarts=2),))
    found = attack(model, clean, labels, cross_entropy, seeds(12), misclassified)
    fates = []
    for row in range(12):
        one = slice(row, row + 1)
        starts = [boundary_start(clean[one], noise.derive(own(12)[one], restart), eps, norm) for restart in (0, 1)]
        runs = [published(model, clean[one], start, labels[one], cross_entropy, eps, steps, norm) for start in starts]
        fates.append(any(run.fell for run in runs))
    assert found.fallen.tolist() == fates
    assert 0 < sum(fates) < 12
    assert torch.equal(found.fallen, misclassified(model(found.pixels), labels))


def test_targeted_fate_and_targets() -> None:
    """Targets are the 2nd to 4th best clean classes, in this order; a sample falls to any class but its label."""
    model, clean, steps, eps = convolutional(20), images(12, low=0.1, high=0.9), 10, RADIUS["linf"] * 0.5
    logits = model(clean)
    labels, ranking = logits.argmax(1), logits.argsort(dim=1, descending=True)
    attack = AutoAttack((TargetedAPGD("linf", eps, steps, targets=3),))
    found = attack(model, clean, labels, cross_entropy, seeds(12), misclassified)
    fates = []
    for row in range(12):
        one = slice(row, row + 1)
        fell = False
        for number in range(3):
            pair = torch.tensor([[int(labels[row]), int(ranking[row, number + 1])]])
            start = boundary_start(clean[one], noise.derive(own(12)[one], number), eps, "linf")
            fell |= published(model, clean[one], start, pair, targeted_dlr, eps, steps, "linf").fell
        fates.append(fell)
    assert found.fallen.tolist() == fates
    assert 0 < sum(fates) < 12


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_targeted_with_few_classes(classes: int) -> None:
    model, clean = linear(classes), images(8)
    labels, tried = model(clean).argmax(1), set()

    class Spied(TargetedAPGD):
        def loss(self, outputs: Tensor, walks: Ascent, loss_fn: LossFn) -> Tensor:
            tried.update(zip(walks.target.tolist(), walks.aim.tolist(), strict=True))
            return super().loss(outputs, walks, loss_fn)

    found = AutoAttack((Spied("linf", 0.5, 10, targets=9),))(model, clean, labels, cross_entropy, seeds(8))
    assert {label for label, _ in tried} == set(labels.tolist())
    assert tried == {(label, aim) for label in set(labels.tolist()) for aim in range(classes) if aim != label}
    assert misclassified(model(found.pixels), labels).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_linear_model_reaches_the_analytic_optimum(norm: str) -> None:
    model, clean, eps = linear(2), images(4, low=0.3, high=0.7), 0.1
    labels = torch.zeros(4, dtype=torch.int64)
    weight = model.network[1].weight.detach()
    difference = weight[1] - weight[0]
    dual = difference.abs().sum() if norm == "linf" else difference.norm()
    found = AutoAttack((APGD(norm, eps, 50),))(model, clean, labels, margin, seeds(4))
    gain = margin(model(found.pixels), labels) - margin(model(clean), labels)
    torch.testing.assert_close(gain.double(), (eps * dual).expand(4), rtol=2e-4, atol=1e-5)


def test_no_weaker_than_pgd_of_the_same_budget() -> None:
    model, clean = convolutional(10), images(64, low=0.2, high=0.8)
    labels, eps = model(clean).argmax(1), 3 / 255
    adaptive = AutoAttack((APGD("linf", eps, 20),))(model, clean, labels, cross_entropy, seeds(64), misclassified)
    fixed = PGD("linf", eps, eps / 4, 20)(model, clean, labels, cross_entropy, seeds(64), misclassified)
    assert adaptive.fallen.sum() >= fixed.fallen.sum() - 1
    assert 0 < adaptive.fallen.sum() < 64


def test_the_fallen_leave_the_batch() -> None:
    model, clean, sizes = convolutional(10), images(32), []
    labels = model(clean).argmax(1)

    def counted(pixels: Tensor) -> Tensor:
        sizes.append(len(pixels))
        return model(pixels)

    AutoAttack((APGD("linf", 5 / 255, 20),))(counted, clean, labels, cross_entropy, seeds(32), misclassified)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 32
    sizes.clear()
    AutoAttack((APGD("linf", 1.0, 50),))(counted, clean, labels, cross_entropy, seeds(32), misclassified)
    assert len(sizes) < 51  # nobody stands, nothing more to do
