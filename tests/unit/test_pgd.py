"""PGD: the analytic optimum, an independent formulation, the cost, and what it must leave alone."""

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.attacks import APGD, PGD, AutoAttack, TargetedAPGD, misclassified
from lightning_modules.attacks.losses import cross_entropy, embedding_l2, margin
from lightning_modules.attacks.projection import boundary_start, project_, uniform_start
from tests.unit.networks import SHAPE, convolutional, images, linear, seeds

ATTACKS = {
    "pgd-linf": PGD("linf", 8 / 255, 2 / 255, 5),
    "pgd-l2": PGD("l2", 0.5, 0.15, 5),
    "pgd-momentum": PGD("linf", 8 / 255, 2 / 255, 5, momentum=0.9),
    "pgd-restarts": PGD("linf", 8 / 255, 2 / 255, 3, restarts=3),
    "apgd-linf": AutoAttack((APGD("linf", 8 / 255, 8),)),
    "apgd-l2": AutoAttack((APGD("l2", 0.5, 8, restarts=2),)),
    "apgd-t": AutoAttack((TargetedAPGD("linf", 8 / 255, 6, targets=2),)),
    "auto-attack": AutoAttack((APGD("linf", 4 / 255, 5), TargetedAPGD("linf", 4 / 255, 5, targets=2))),
}
RADIUS = {"linf": 8 / 255, "l2": 0.5}
every_attack = pytest.mark.parametrize("name", ATTACKS)
with_and_without_fallen = pytest.mark.parametrize("fallen", [None, misclassified])


def length(perturbation: Tensor, norm: str) -> Tensor:
    flat = perturbation.double().flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_linear_model_reaches_the_analytic_optimum(norm: str, momentum: float) -> None:
    """The margin of a linear two-class model rises by eps times the dual norm of its weight difference."""
    model, clean, eps = linear(2), images(6, low=0.3, high=0.7), 0.1
    labels = torch.zeros(6, dtype=torch.int64)
    weight = model.network[1].weight
    difference = (weight[1] - weight[0]).detach()
    dual = difference.abs().sum() if norm == "linf" else difference.norm()
    attack = PGD(norm, eps, step=eps / 3, steps=30, momentum=momentum)
    found = attack(model, clean, labels, margin, seeds(6))
    gain = margin(model(found.pixels), labels) - margin(model(clean), labels)
    torch.testing.assert_close(gain.double(), (eps * dual).expand(6), rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_equals_an_independent_implementation(norm: str, momentum: float) -> None:
    """A perturbation-space PGD, one sample at a time, on a mean loss."""
    model, clean = convolutional(5), images(4)
    labels, eps, step = model(clean).argmax(1), RADIUS[norm], RADIUS[norm] / 4
    found = PGD(norm, eps, step, 7, momentum=momentum, random_start=False)(
        model, clean, labels, cross_entropy, seeds(4)
    )
    for row in range(4):
        image, delta, velocity = clean[row], torch.zeros(SHAPE), 0.0
        for _ in range(7):
            delta.requires_grad_()
            loss = nn.functional.cross_entropy(model((image + delta)[None]), labels[row : row + 1])
            gradient = torch.autograd.grad(loss, delta)[0]
            velocity = momentum * velocity + gradient / gradient.norm(p=1)
            delta = delta.detach()
            if norm == "linf":
                delta = (delta + step * velocity.sign()).clamp(-eps, eps)
            else:
                delta = delta + step * velocity / velocity.norm()
                delta = delta * min(1.0, eps / float(delta.norm()))
            delta = (image + delta).clamp(0, 1) - image
        torch.testing.assert_close(found.pixels[row], image + delta, rtol=0, atol=2e-6)


def test_fare_momentum_of_signs_is_plain_pgd() -> None:
    """Why `momentum` is not FARE's: under L-inf theirs never turns a sign."""
    model, clean, eps, step = convolutional(5), images(4), 8 / 255, 2 / 255
    labels = model(clean).argmax(1)
    delta, velocity = torch.zeros_like(clean), torch.zeros_like(clean)
    for _ in range(6):
        pixels = (clean + delta).requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(pixels), labels).mean(), pixels)
        velocity = (0.9 * velocity + gradient.sign()).sign()
        delta = (clean + (delta + step * velocity).clamp(-eps, eps)).clamp(0, 1) - clean
    plain = PGD("linf", eps, step, 6, random_start=False)(model, clean, labels, cross_entropy, seeds(4))
    torch.testing.assert_close(plain.pixels, clean + delta, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("attack", "fallen", "forwards", "backwards"),
    [
        (PGD("linf", 0.03, 0.01, 6), None, 6, 6),
        (PGD("linf", 1e-6, 1e-7, 6), misclassified, 7, 6),  # one more, to judge the last iterate
        (PGD("linf", 0.03, 0.01, 6, restarts=3), None, 21, 18),
        (AutoAttack((APGD("linf", 0.03, 6),)), None, 7, 6),
        (AutoAttack((APGD("linf", 1e-6, 6, restarts=2),)), misclassified, 14, 12),
        (AutoAttack((TargetedAPGD("linf", 1e-6, 6, targets=3),)), misclassified, 1 + 3 * 7, 18),
    ],
)
def test_cost(attack, fallen, forwards: int, backwards: int) -> None:
    model, clean, calls, gradients = convolutional(5), images(4), [], []

    def counted(pixels: Tensor) -> Tensor:
        calls.append(len(pixels))
        if pixels.requires_grad:
            pixels.register_hook(lambda gradient: gradients.append(len(gradient)))
        return model(pixels)

    attack(counted, clean, model(clean).argmax(1), cross_entropy, seeds(4), fallen)
    assert (len(calls), len(gradients)) == (forwards, backwards)


@every_attack
@with_and_without_fallen
def test_budget_and_range(name: str, fallen) -> None:
    clean, attack = images(6, low=-0.2, high=1.2).clamp(0, 1), ATTACKS[name]
    norm = "l2" if name.endswith("l2") else "linf"
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        model = convolutional(5).network.to(dtype)
        found = attack(
            lambda pixels, model=model, dtype=dtype: model(pixels.to(dtype)),
            clean,
            torch.arange(6) % 5,
            cross_entropy,
            seeds(6),
            fallen,
        )
        assert found.pixels.dtype == torch.float32
        assert length(found.pixels - clean, norm).max() <= RADIUS[norm] + 1e-6
        assert found.pixels.min() >= 0
        assert found.pixels.max() <= 1
        assert not torch.equal(found.pixels, clean)


@every_attack
@with_and_without_fallen
def test_a_sample_does_not_see_its_batch(name: str, fallen) -> None:
    model, clean, labels = convolutional(5), images(8), torch.arange(8) % 5
    together = ATTACKS[name](model, clean, labels, cross_entropy, seeds(8), fallen)
    for row in (0, 5, 7):
        one = slice(row, row + 1)
        alone = ATTACKS[name](model, clean[one], labels[one], cross_entropy, seeds(8)[one], fallen)
        for of_batch, own in zip(together, alone, strict=True):
            assert torch.equal(of_batch[one], own)


class Batch(nn.Module):
    """Batch normalisation frozen in evaluation mode within a network in training mode, as far as that is allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.free = nn.BatchNorm2d(3).eval(), nn.Dropout(0.0)
        self.head = nn.Linear(192, 5)
        self.head.bias.requires_grad_(False)
        self.raises = False

    def forward(self, pixels: Tensor) -> Tensor:
        if self.raises:
            raise RuntimeError("out of memory")
        return self.head(self.frozen(pixels).flatten(1))


@every_attack
@with_and_without_fallen
@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("grad_enabled", [False, True])
def test_leaves_no_trace(name: str, fallen, raises: bool, grad_enabled: bool) -> None:
    model, clean = Batch(), images(4)
    model.raises = raises
    before = clean.clone()
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    generator = torch.get_rng_state()
    with torch.set_grad_enabled(grad_enabled):
        try:
            found = ATTACKS[name](model, clean, torch.arange(4), cross_entropy, seeds(4), fallen)
            assert not raises
            assert not any(each.requires_grad for each in found)
        except RuntimeError:
            assert raises
        assert torch.is_grad_enabled() == grad_enabled
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [module.training for module in model.modules()] == modes == [True, False, True, True]
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(clean, before)
    assert not clean.requires_grad


def test_more_steps_restarts_or_radius_never_help_the_defender() -> None:
    model, clean = convolutional(10), images(64, low=0.2, high=0.8)
    labels = model(clean).argmax(1)

    def standing(attack: PGD) -> int:
        found = attack(model, clean, labels, cross_entropy, seeds(64), misclassified)
        return int((~found.fallen).sum())

    by_radius = [standing(PGD("linf", eps / 255, eps / 4 / 255, 10)) for eps in (0.25, 2, 4, 8, 64)]
    assert by_radius == sorted(by_radius, reverse=True)
    assert by_radius[0] > by_radius[2] > by_radius[-1] == 0
    assert standing(PGD("linf", 4 / 255, 1 / 255, 20)) <= standing(PGD("linf", 4 / 255, 1 / 255, 3)) + 1
    assert standing(PGD("linf", 4 / 255, 1 / 255, 3, restarts=4)) <= standing(PGD("linf", 4 / 255, 1 / 255, 3))


def test_restarts_keep_the_highest_loss() -> None:
    model, clean = convolutional(5), images(8)
    labels = model(clean).argmax(1)
    losses = []
    for restarts in (1, 2, 4):
        found = PGD("linf", 8 / 255, 8 / 255, 1, restarts)(model, clean, labels, cross_entropy, seeds(8))
        losses.append(cross_entropy(model(found.pixels), labels))
    assert (losses[1] >= losses[0]).all()
    assert (losses[2] >= losses[1]).all()
    assert (losses[2] > losses[0]).any()


def test_zero_gradient_is_reported_per_sample() -> None:
    """A clamp hides the gradient of the dark half of every image but the first, which is bright throughout."""
    head, clean = linear(5), images(3, low=0.6, high=0.9)
    clean[1:, :, :4] -= 0.5
    found = PGD("linf", 0.01, 0.005, 2)(
        lambda pixels: head(pixels.clamp_min(0.5)), clean, torch.arange(3), cross_entropy, seeds(3)
    )
    assert found.zero_gradient.tolist() == [0.0, 0.5, 0.5]
    unmoved = PGD("linf", 0.01, 0.005, 2, random_start=False)(head, clean, head(clean), embedding_l2, seeds(3))
    assert unmoved.zero_gradient.tolist() == [1.0, 1.0, 1.0]
    assert torch.equal(unmoved.pixels, clean)


def test_a_gradient_that_is_not_a_number_moves_nothing() -> None:
    model, clean = linear(5), images(2)

    def broken(pixels: Tensor) -> Tensor:
        factor = torch.tensor([[1.0], [float("nan")]], dtype=torch.float64)
        return model(pixels) * factor[: len(pixels)]

    found = PGD("linf", 0.1, 0.05, 3, random_start=False)(broken, clean, torch.arange(2), cross_entropy, seeds(2))
    assert found.pixels.isfinite().all()
    assert torch.equal(found.pixels[1], clean[1])
    assert not torch.equal(found.pixels[0], clean[0])
    assert misclassified(broken(clean), broken(clean).argmax(1)).tolist() == [False, True]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_starts_and_projection(norm: str) -> None:
    clean, eps = images(5, low=0.4, high=0.6), 0.1
    assert length(uniform_start(clean, seeds(5), eps, norm) - clean, norm).max() <= eps + 1e-6
    boundary = length(boundary_start(clean, seeds(5), eps, norm) - clean, norm)
    torch.testing.assert_close(boundary, torch.full_like(boundary, eps), rtol=1e-5, atol=1e-6)
    inside = clean + 0.5 * eps / 14  # L2 length eps / 2
    torch.testing.assert_close(project_(inside.clone(), clean, eps, norm), inside)
    outside = project_(clean + images(5, seed=1) * 9, clean, eps, norm)
    assert length(outside - clean, norm).max() <= eps + 1e-6
    torch.testing.assert_close(project_(outside.clone(), clean, eps, norm), outside)
