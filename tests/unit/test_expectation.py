"""Gradients of a randomised model."""

import pytest
import torch
from torch import Tensor

from lightning_modules.attacks.attack import ask
from lightning_modules.attacks.expectation import Expectation
from lightning_modules.attacks.losses import cross_entropy
from tests.unit.networks import convolutional, images

NETWORK = convolutional(5)
CLEAN = images(4)
LABELS = torch.arange(4)


def noisy(pixels: Tensor) -> Tensor:
    return NETWORK(pixels + 0.3 * torch.randn_like(pixels))


def raised(outputs: Tensor) -> Tensor:
    return cross_entropy(outputs, LABELS)


def test_averages_the_gradients_of_the_draws() -> None:
    torch.manual_seed(0)
    outputs, losses, gradient = Expectation(6)(noisy, CLEAN, raised)
    after = torch.rand(1)
    torch.manual_seed(0)
    gradients = []
    for _ in range(6):
        pixels = CLEAN.clone().requires_grad_()
        logits = noisy(pixels)
        value = raised(logits)
        gradients.append(torch.autograd.grad(value.sum(), pixels)[0])
    assert torch.equal(torch.rand(1), after)  # as many numbers were drawn
    torch.testing.assert_close(gradient, torch.stack(gradients).mean(0))
    assert torch.equal(outputs, logits)  # of the last draw
    assert torch.equal(losses, value)
    assert not torch.allclose(gradients[0], gradients[1])


def test_more_draws_come_closer_to_the_expectation() -> None:
    torch.manual_seed(0)

    def gradient(draws: int) -> Tensor:
        found = Expectation(draws)(noisy, CLEAN, raised)[2]
        assert found is not None
        return found

    expected = gradient(800)
    errors = [(gradient(draws) - expected).norm() for draws in (1, 50)]
    assert errors[1] < errors[0] / 3  # a seventh, in expectation


def test_without_a_gradient_one_draw_is_made() -> None:
    calls = []

    def counted(pixels: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return noisy(pixels)

    with torch.no_grad():
        assert Expectation(6)(counted, CLEAN, raised, gradient=False)[2] is None
        assert calls == [False]
        Expectation(6)(counted, CLEAN, raised)
    assert calls == [False] + [True] * 6


def test_a_graph_is_freed_before_the_next_is_built() -> None:
    events = []

    def watched(pixels: Tensor) -> Tensor:
        events.append("forward")
        pixels.register_hook(lambda _: events.append("backward"))
        return noisy(pixels)

    Expectation(3)(watched, CLEAN, raised)
    assert events == ["forward", "backward"] * 3


@pytest.mark.parametrize("draws", [1, 4])
def test_a_deterministic_model_gives_its_gradient(draws: int) -> None:
    expected, found = ask(NETWORK, CLEAN, raised), Expectation(draws)(NETWORK, CLEAN, raised)
    for before, now in zip(expected, found, strict=True):
        assert before is not None
        assert now is not None
        torch.testing.assert_close(now, before)
