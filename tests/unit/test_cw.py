"""Carlini & Wagner: the analytic optimum, an independent formulation, the budget, and independence of the schedule."""

import math

import pytest
import torch
from torch import Tensor

from lightning_modules.attacks import PGD, AutoAttack, engine, misclassified, noise
from lightning_modules.attacks.cw import CWL2, CWLinf
from lightning_modules.attacks.engine import Engine
from lightning_modules.attacks.losses import cross_entropy, margin
from lightning_modules.attacks.outcome import Outcome
from lightning_modules.attacks.projection import uniform_start
from lightning_modules.attacks.walks import Samples
from tests.unit.networks import convolutional, images, linear, seeds

METHODS = {
    "l2": CWL2(0.15, steps=10, search_steps=6),
    "l2-confident": CWL2(0.3, steps=10, search_steps=6, confidence=0.05),
    "linf": CWLinf(2 / 255, 0.5 / 255, steps=10),
}
every_method = pytest.mark.parametrize("name", METHODS)


def attacked(method, model, clean: Tensor, labels: Tensor, fallen=None):
    return AutoAttack((method,))(model, clean, labels, cross_entropy, seeds(len(clean)), fallen)


def lengths(perturbation: Tensor) -> Tensor:
    return perturbation.flatten(1).norm(dim=1)


def samples(model, clean: Tensor, labels: Tensor) -> Samples:
    rows = torch.arange(len(clean))
    return Samples(rows, clean, labels, model(clean).detach(), seeds(len(clean)), torch.zeros_like(rows))


def streamed(method, model, batch: Samples, slots: int, fallen=misclassified) -> Outcome:
    """Samples that come one by one, so that each slot is at an iteration of its own."""
    working = Engine(method, model, cross_entropy, fallen, slots)
    left = [outcome for row in range(len(batch)) for outcome in working.push(batch.select(torch.tensor([row])))]
    outcome = Outcome.join(left + working.finish())
    return outcome.select(outcome.row.argsort())


def test_a_linear_model_gives_the_distance_to_its_boundary() -> None:
    model, clean = linear(2), images(8, low=0.3, high=0.7)
    labels = model(clean).argmax(1)
    weight = model.network[1].weight
    distance = -margin(model(clean), labels) / (weight[1] - weight[0]).norm().float()
    found = attacked(CWL2(math.inf, steps=80, search_steps=9), model, clean, labels)
    assert misclassified(model(found.pixels), labels).all()
    ratio = lengths(found.pixels - clean) / distance
    assert ratio.min() >= 1
    assert ratio.max() < 1.02
    assert ratio.median() < 1.005


def slow_search(model, image: Tensor, label: int, steps: int, rounds: int, rate: float, constant: float) -> float:
    """The paper's procedure for one image in float64, by autograd and torch's own Adam: the smallest length found."""
    low, high, smallest = 0.0, math.inf, math.inf
    origin = torch.atanh((2 * image.double() - 1) * 0.999999)
    for _ in range(rounds):
        code, before, success = origin.clone().requires_grad_(), math.inf, False
        optimizer = torch.optim.Adam([code], lr=rate)
        for step in range(steps):
            picture = (torch.tanh(code) + 1) / 2
            logits = model.network(picture[None])[0]
            rival = max(logits[other] for other in range(len(logits)) if other != label)
            distance = (picture - image.double()).square().sum()
            total = distance + constant * torch.clamp(logits[label] - rival, min=0)
            if rival > logits[label]:
                success, smallest = True, min(smallest, distance.item() ** 0.5)
            if step % (steps // 10) == 0:
                if total.item() > before * 0.9999:
                    break
                before = total.item()
            optimizer.zero_grad()
            (code.grad,) = torch.autograd.grad(total, code)
            optimizer.step()
        if success:
            high = constant
        else:
            low = constant
        constant = constant * 10 if high == math.inf else (low + high) / 2
    return smallest


def test_equals_an_independent_search() -> None:
    model, clean = convolutional(4), images(4)
    labels = model(clean).argmax(1)
    method = CWL2(math.inf, steps=20, search_steps=7, learning_rate=0.02)
    # In float64: Adam's first steps are those of signs, and amplify the rounding of gradients that are nearly 0.
    found = streamed(method, model, samples(model, clean.double(), labels), slots=3, fallen=None)
    expected = [slow_search(model, clean[row], int(labels[row]), 20, 7, 0.02, 1e-3) for row in range(4)]
    assert all(map(math.isfinite, expected))
    assert lengths(found.pixels - clean).tolist() == pytest.approx(expected, rel=1e-5)


def test_more_rounds_and_steps_find_smaller_perturbations() -> None:
    model, clean = convolutional(10), images(16)
    labels = model(clean).argmax(1)
    means = [
        float(lengths(attacked(CWL2(math.inf, steps, rounds), model, clean, labels).pixels - clean).mean())
        for steps, rounds in ((20, 5), (20, 7), (50, 7))
    ]
    assert means == sorted(means, reverse=True)
    assert means[2] < 0.98 * means[0]


@pytest.mark.parametrize("shift", [-64.0, 64.0])
def test_only_differences_of_logits_matter(shift: float) -> None:
    """A margin that masks classes with 0 has no gradient where all logits are negative."""
    model, clean = convolutional(6), images(8)
    labels = model(clean).argmax(1)
    for method in METHODS.values():
        plain = attacked(method, model, clean, labels).pixels
        moved = attacked(method, lambda pixels: model(pixels) + shift, clean, labels).pixels
        torch.testing.assert_close(lengths(moved - clean), lengths(plain - clean), rtol=1e-2, atol=0)
        assert (lengths(moved - clean) > 0).all()


def test_the_fallen_are_those_whose_smallest_perturbation_is_within_the_radius() -> None:
    model, clean = convolutional(6), images(32)
    labels = model(clean).argmax(1)
    smallest = lengths(attacked(CWL2(math.inf, 20, 6), model, clean, labels).pixels - clean)
    counts = []
    for eps in (0.02, 0.1, 0.2, 2.0):
        found = attacked(CWL2(eps, 20, 6), model, clean, labels, misclassified)
        assert torch.equal(found.fallen, smallest <= eps)
        assert misclassified(model(found.pixels), labels)[found.fallen].all()
        assert lengths(found.pixels - clean).max() <= eps + 1e-6
        counts.append(int(found.fallen.sum()))
    assert counts == sorted(counts)
    assert 0 < counts[1] < counts[2]
    assert counts[3] == 32


def test_best_within_a_radius_that_is_too_small_has_the_largest_margin_there() -> None:
    model, clean = convolutional(6), images(8)
    labels, eps = model(clean).argmax(1), 0.08
    found = attacked(CWL2(eps, 30, 5), model, clean, labels)
    standing = ~misclassified(model(found.pixels), labels)
    assert standing.any()
    assert lengths(found.pixels - clean).max() <= eps
    assert (margin(model(found.pixels), labels) > margin(model(clean), labels))[standing].all()


def test_confidence_is_reached() -> None:
    model, clean = convolutional(6), images(16)
    labels = model(clean).argmax(1)
    plain = attacked(CWL2(math.inf, 20, 7, learning_rate=0.05), model, clean, labels).pixels
    sure = attacked(CWL2(math.inf, 20, 7, learning_rate=0.05, confidence=0.2), model, clean, labels).pixels
    assert (margin(model(sure), labels) > 0.2).all()
    assert (margin(model(plain), labels) < 0.2).all()
    assert (lengths(sure - clean) > lengths(plain - clean)).all()


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_budget_and_range(name: str, dtype) -> None:
    """Half of the pixels are exactly 0 or 1, and must be able to move."""
    model, clean, method = convolutional(5).network.to(dtype), images(8, low=-0.5, high=1.5).clamp(0, 1), METHODS[name]
    found = attacked(method, lambda pixels: model(pixels.to(dtype)), clean, torch.arange(8) % 5)
    assert found.pixels.dtype == torch.float32
    assert found.pixels.min() >= 0
    assert found.pixels.max() <= 1
    moved = found.pixels - clean
    size = moved.abs().amax() if name == "linf" else lengths(moved).max()
    assert size <= method.eps + 1e-6
    fooled = misclassified(model(clean.to(dtype)), torch.arange(8) % 5)
    for bound in (0, 1):
        assert (moved[~fooled][clean[~fooled] == bound] != 0).any()


@every_method
@pytest.mark.parametrize(("slots", "interval"), [(1, 1), (3, 1), (3, 7), (16, 7)])
def test_neither_batch_nor_schedule_matter(name: str, slots: int, interval: int, monkeypatch) -> None:
    """An accelerator is asked for decisions every few questions: walks that are over must stay as they are."""
    model, clean = convolutional(5), images(8)
    batch = samples(model, clean, model(clean).argmax(1))
    plain = streamed(METHODS[name], model, batch, slots=8)
    monkeypatch.setitem(engine._INTERVAL, "cpu", interval)
    found = streamed(METHODS[name], model, batch, slots)
    assert torch.equal(found.fallen, plain.fallen)
    assert torch.equal(found.pixels, plain.pixels)
    free = streamed(METHODS[name], model, batch, slots, fallen=None)
    monkeypatch.undo()
    assert torch.equal(free.pixels, streamed(METHODS[name], model, batch, 8, fallen=None).pixels)


def test_stalled_rounds_end_early_and_the_budget_of_questions_holds() -> None:
    model, clean = convolutional(5), images(8)
    method = CWL2(math.inf, 50, 6)
    working = Engine(method, model, cross_entropy, None, slots=8)
    working.push(samples(model, clean, model(clean).argmax(1)))
    working.finish()
    assert 8 * method.search_steps < working.queries < 8 * method.queries


def test_outputs_that_are_not_numbers_fell_their_own_sample_only() -> None:
    model, clean = convolutional(5), images(4)
    labels = model(clean).argmax(1)
    clean[2] = 0.25

    def broken(pixels: Tensor) -> Tensor:
        flat = (pixels - 0.25).abs().flatten(1).amax(1) < 0.2
        return torch.where(flat[:, None], float("nan"), model(pixels))

    for method in METHODS.values():
        batch = samples(model, clean, labels)
        found = streamed(method, broken, batch, 4)
        assert found.broken.tolist() == [False, False, True, False]
        assert found.fallen[2]
        intact = torch.tensor([0, 1, 3])
        assert torch.equal(found.pixels[intact], streamed(method, model, batch, 4).pixels[intact])
        assert attacked(method, broken, clean, labels).pixels.isfinite().all()


def test_linf_is_projected_ascent_on_the_margin() -> None:
    """Its iterates are those of PGD with as many steps, and the one of largest margin is kept."""
    model, clean = convolutional(6), images(8)
    labels, eps, step, own = model(clean).argmax(1), 4 / 255, 1 / 255, noise.derive(seeds(8), 0)
    iterates = [uniform_start(clean, noise.derive(own, 0), eps, "linf")]
    iterates += [PGD("linf", eps, step, k)(model, clean, labels, margin, own).pixels for k in range(1, 9)]
    margins = torch.stack([margin(model(pixels), labels) for pixels in iterates])
    found = attacked(CWLinf(eps, step, steps=8), model, clean, labels)
    assert torch.equal(found.pixels, torch.stack(iterates)[margins.argmax(0), torch.arange(8)])
    judged = attacked(CWLinf(eps, step, steps=8), model, clean, labels, misclassified)
    assert torch.equal(judged.fallen, (margins > 0).any(0))
    assert judged.fallen.any()


@every_method
@pytest.mark.parametrize("raises", [False, True])
def test_leaves_no_trace(name: str, raises: bool) -> None:
    model, clean, labels = convolutional(5).train(), images(4), torch.arange(4)
    model.network[0].eval()
    modes, generator = [module.training for module in model.modules()], torch.get_rng_state()

    def asked(pixels: Tensor) -> Tensor:
        if raises:
            raise RuntimeError("out of memory")
        return model(pixels)

    try:
        attacked(METHODS[name], asked, clean, labels, misclassified)
        assert not raises
    except RuntimeError:
        assert raises
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), generator)
