"""Objectives against their formulas, and which embeddings their gradients reach."""

import pytest
import torch

from configs.schema import module as schema
from lightning_modules.objectives import FARE, TeCoA, build


@pytest.fixture
def texts() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), dim=1)


@pytest.fixture
def embeddings() -> torch.Tensor:
    return torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1)) * 3


def test_tecoa(texts: torch.Tensor, embeddings: torch.Tensor) -> None:
    labels = torch.tensor([0, 3, 6, 1])
    objective = build(schema.TeCoA(clean_weight=0.5), texts, torch.tensor(20.0))
    assert (objective.needs_reference, objective.needs_clean) == (False, True)
    target = objective.target(labels, None)
    by_hand = []
    for branch in embeddings:
        cosines = torch.stack([torch.stack([image @ text / image.norm() for text in texts]) for image in branch])
        by_hand.append(-(20 * cosines).log_softmax(1)[range(4), labels])
    torch.testing.assert_close(objective.inner(embeddings[0], target), by_hand[0])
    loss, parts = objective.outer(embeddings[0], embeddings[1], target)
    torch.testing.assert_close(loss, by_hand[0].mean() + 0.5 * by_hand[1].mean())
    torch.testing.assert_close(parts, {"adversarial": by_hand[0].mean(), "clean": by_hand[1].mean()})
    scaled = build(schema.TeCoA(), texts, torch.tensor(20.0)).inner(embeddings[0] * 9, labels)
    torch.testing.assert_close(scaled, by_hand[0])  # an embedding's length does not matter


def test_tecoa_scale(texts: torch.Tensor) -> None:
    own = torch.tensor(20.0, requires_grad=True)
    objective = build(schema.TeCoA(), texts, own)
    assert isinstance(objective, TeCoA)
    assert not objective.logit_scale.requires_grad
    assert build(schema.TeCoA(logit_scale=100.0), texts, own).logit_scale == 100.0
    with pytest.raises(ValueError, match="no text features"):
        build(schema.TeCoA(), None, own)


def test_fare(embeddings: torch.Tensor) -> None:
    reference = torch.ones(4, 5, requires_grad=True)
    objective = build(schema.FARE(clean_weight=2.0), None, 1.0)
    assert (objective.needs_reference, objective.needs_clean) == (True, True)
    target = objective.target(torch.zeros(4, dtype=torch.int64), reference)
    adversarial, clean = embeddings[0].clone().requires_grad_(), embeddings[1].clone().requires_grad_()
    distance = [sum((image - 1).pow(2).sum().item() for image in branch) / 4 for branch in embeddings]
    loss, parts = objective.outer(adversarial, clean, target)
    assert loss.item() == pytest.approx(distance[0] + 2 * distance[1])
    assert parts["clean"].item() == pytest.approx(distance[1])
    loss.backward()
    torch.testing.assert_close(adversarial.grad, 2 * (embeddings[0] - 1) / 4)
    torch.testing.assert_close(clean.grad, 2 * 2 * (embeddings[1] - 1) / 4)
    assert reference.grad is None
    with pytest.raises(ValueError, match="none was given"):
        objective.target(torch.zeros(4), None)


@pytest.mark.parametrize("objective", [FARE(), TeCoA(torch.eye(5), 10.0)])
def test_without_a_clean_branch(objective, embeddings: torch.Tensor) -> None:
    target = torch.arange(4) if isinstance(objective, TeCoA) else embeddings[1]
    loss, parts = objective.outer(embeddings[0], None, target)
    assert not objective.needs_clean
    assert list(parts) == ["adversarial"]
    torch.testing.assert_close(loss, objective.inner(embeddings[0], target).mean())
